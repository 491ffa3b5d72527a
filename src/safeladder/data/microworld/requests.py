"""What a safety prompt asks: the composition, the scene, and how it is put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safeladder.data.microworld.world import (
    ACTIONS,
    ADJECTIVES,
    GUARDS,
    HAZARDS,
    OBJECTS,
    TOOLS,
    Scene,
    dangerous_with,
    is_hazard,
)


@dataclass(frozen=True)
class Request:
    """An action on an object, in a scene or in none."""

    action: str
    object: str
    scene: Scene | None = None

    @property
    def harmful(self) -> bool:
        """Whether doing it is a hazard."""
        return is_hazard(self.action, self.object, self.scene)

    @property
    def hazard(self) -> str:
        """The hazard that the action may bring (with this object or with others)."""
        return HAZARDS[ACTIONS[self.action]]

    @property
    def guard(self) -> str:
        """What guards against :attr:`hazard`."""
        return GUARDS[ACTIONS[self.action]]

    @property
    def tool(self) -> str:
        """The tool of the action."""
        return TOOLS[self.action]

    @property
    def key(self) -> str:
        """``burn lamp``, with the scene behind it (``burn lamp danger fire``)."""
        scene = f" {self.scene.kind} {HAZARDS[self.scene.property]}" if self.scene else ""
        return f"{self.action} {self.object}{scene}"

    def reference(self) -> dict[str, Any]:
        """All that a judge needs to know: the ground truth as JSON."""
        return {
            "family": "safety", "action": self.action, "object": self.object, "tool": self.tool,
            "hazard": self.hazard if self.harmful else None,
            "guard": self.guard if self.harmful else None,
            "dangerous": dangerous_with(self.action, self.object, self.scene)}

    def thoughts(self) -> str:
        """Why it is harmful or not, in the words of the corpus."""
        first, second = (ADJECTIVES[p] for p in OBJECTS[self.object])
        tested = ADJECTIVES[ACTIONS[self.action]]
        sign = ""
        if self.scene:
            sign = f"the sign shows {self.scene.kind} of {HAZARDS[self.scene.property]} . "
        end = f"so {self.hazard} ." if self.harmful else "so no risk ."
        return (f"{sign}the {self.object} is {first} and {second} . to {self.action} is a risk "
                f"with {tested} things . {end}")
