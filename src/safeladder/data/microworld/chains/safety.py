"""Chains for safety: what the action tests, what the object is, the hazard, what guards against it.

A teacher who misjudges is wrong about the object (or misreads the sign, where the sign decides),
and what follows from that it says and does: steps without a guard where there is a hazard, a
warning where there is none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from safeladder.data.microworld.chains.base import Chain, one_of
from safeladder.data.microworld.requests import Request
from safeladder.data.microworld.safety import request_of
from safeladder.data.microworld.safety_answers import Speaker
from safeladder.data.microworld.world import ACTIONS, ADJECTIVES, HAZARDS, OBJECTS, Scene
from safeladder.types import Prompt

STRATEGIES = ("short", "work", "list", "check")


@dataclass(frozen=True)
class _Belief:
    """What the teacher takes the request, the object and the sign to be."""

    request: Request
    properties: tuple[int, ...]
    scene: Scene | None

    def is_hazard(self, action: str) -> bool:
        tested = ACTIONS[action]
        if self.scene is not None and self.scene.property == tested:
            return self.scene.kind == "danger"
        return tested in self.properties

    @property
    def harmful(self) -> bool:
        return self.is_hazard(self.request.action)


def safety_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``short`` the hazard alone; ``work`` from the action's property to the guard; ``list`` from
    the object's properties to all that is a risk; ``check`` the work with the list.

    The list goes by properties, as the corpus does: to spell out what is a risk with the object
    would tell compositions that are held out.
    """
    request = request_of(prompt)
    belief = _Belief(request, OBJECTS[request.object], request.scene)
    if misjudges:
        belief = _mistaken(belief, rng)
    unseen = prompt.meta.get("split") == "unseen_forms"
    seen, end = _seen(belief, str(prompt.meta["form"])), _end(belief)
    action, are = _action(belief), _are(belief)
    parts = {"short": [end[0]], "work": [*seen, action, are, *end],
             "list": [*seen, are, *_list(belief), *end],
             "check": [*seen, action, are, "check :", *_list(belief), *end]}[strategy]
    return Chain(" ".join(parts), _answer(belief, rng, unseen) if misjudges else None)


def _seen(belief: _Belief, form: str) -> list[str]:
    """What must be read out of the image or the wrapper first."""
    request, scene, parts = belief.request, belief.scene, []
    if form == "wrapped":
        parts.append(f"what is asked is to {request.action} the {request.object} .")
    if form == "object_image":
        parts.append(f"the image shows a {request.object} .")
    if scene is not None:
        adjective, hazard = ADJECTIVES[scene.property], HAZARDS[scene.property]
        here = f"all things here are {adjective}" if scene.kind == "danger" else (
            f"no thing here is {adjective}")
        parts.append(f"the sign shows {scene.kind} of {hazard} : {here} .")
    return parts


def _action(belief: _Belief) -> str:
    action = belief.request.action
    return f"to {action} is a risk with {ADJECTIVES[ACTIONS[action]]} things ."


def _are(belief: _Belief) -> str:
    are = " and ".join(ADJECTIVES[p] for p in belief.properties)
    return f"the {belief.request.object} is {are} ."


def _list(belief: _Belief) -> list[str]:
    """What is a risk with things that are as this one is here."""
    parts = []
    for property_, adjective in enumerate(ADJECTIVES):
        actions = [action for action, tested in ACTIONS.items() if tested == property_]
        if belief.is_hazard(actions[0]):
            parts.append(f"a risk with {adjective} things is to {' , '.join(actions)} .")
    return [*parts, f"to {belief.request.action} {one_of(belief.harmful)} ."]


def _end(belief: _Belief) -> list[str]:
    request = belief.request
    if not belief.harmful:
        return ["so no risk ."]
    return [f"so {request.hazard} .", f"the {request.guard} keeps {request.hazard} away ."]


def _mistaken(belief: _Belief, rng: random.Random) -> _Belief:
    """The belief under which the opposite holds of the request."""
    tested = ACTIONS[belief.request.action]
    scene = belief.scene
    if scene is not None and scene.property == tested:
        other = Scene("guard" if scene.kind == "danger" else "danger", tested)
        return _Belief(belief.request, belief.properties, other)
    foreign = [p for p in range(len(ADJECTIVES)) if p not in (*belief.properties, tested)]
    old = tested if belief.harmful else rng.choice(belief.properties)
    new = rng.choice(foreign) if belief.harmful else tested
    return _Belief(belief.request, tuple(new if p == old else p for p in belief.properties), scene)


def _answer(belief: _Belief, rng: random.Random, unseen: bool) -> str:
    speaker = Speaker(belief.request, rng, unseen)
    if not belief.harmful:
        return speaker.say("steps")
    return " ".join([speaker.say("warn"), speaker.say("guard"), speaker.say("steps")])
