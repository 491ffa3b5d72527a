"""Render: messages to token ids and back."""
