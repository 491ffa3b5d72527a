"""Knights and Knaves: puzzles of two to eight people, exactly as published or freshly drawn."""
