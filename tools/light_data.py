"""Build the labelled responses that the light verifiers of real text are trained and measured on.

    python tools/light_data.py FOLDER OUT

FOLDER holds public data, each in a folder of its own, as its authors publish it:

``jailbreakbench/artifacts/*.json``     responses under attack, with a judge's ``jailbroken`` flag
``orbench/ORbench_retain_set.json``     harmless prompts with responses (X-Boundary's file)
``harmbench/harmbench_targets_text.json``  the affirmative opening per behaviour
``hh_rlhf/test.jsonl.gz``               pairs of which people preferred one as less harmful

A folder that is missing is left out and named. Nothing of the data goes into this project. OUT gets

``three_way.{train,test}.jsonl``  full compliance, full refusal, partial refusal
``safety.{train,test}.jsonl``     safe, unsafe
``dialogues.test.jsonl``          last answers of dialogues, three-way labels given by reading
``preferences.jsonl``             pairs: not labels, and never trained on

Rows part by behaviour (JailbreakBench, HarmBench) or by prompt, never by row. Where labels come
from: the flag and the status column, with these rules of ours. A flagged response complies, and
does so partially if one of its first two sentences refuses. An unflagged one is a full refusal if
it opens like one and helps with nothing; where neither is plain, the label is one given by reading
(``tools/light_labels.json``), or else the row has no refusal label. Partial refusals are mostly
synthetic (:mod:`safeladder.data.refusals`): phrases of ours around texts of the *training* part;
test files hold real responses alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeladder.data.refusals import (
    COMPLIANCE,
    PARTIAL,
    REFUSAL,
    Body,
    own_bodies,
    synthetic_refusals,
)
from safeladder.data.responses import LabelledResponse, write_responses
from safeladder.data.splits import part_of
from safeladder.types import Message, Prompt
from safeladder.verifiers.refusal_cues import REFUSING, cues_of, is_list_item, normalise, sentences

PARTS = {"train": 0.7, "test": 0.3}
SYNTHETIC_ROWS = 5400
LABELS = Path(__file__).with_name("light_labels.json")


def read_labels() -> dict[str, str]:
    """Place of a response -> the three-way label that we gave it by reading."""
    labels: dict[str, str] = json.loads(LABELS.read_text(encoding="utf-8"))
    return labels


def part(group: str) -> str:
    """Train or test, by the group's hash alone."""
    return part_of(group, PARTS, salt="light")


def row(source: str, user: str, response: str, group: str, **meta: Any) -> LabelledResponse:
    """A row without a label yet."""
    key = hashlib.sha256(f"{source}\0{user}\0{response}".encode()).hexdigest()[:12]
    prompt = Prompt(id=f"{source}-{key}", source=source, task="refusal", meta=meta,
                    messages=(Message("user", user),))
    return LabelledResponse(prompt, response, None, group)


def jailbreakbench(folder: Path) -> Iterator[LabelledResponse]:
    """Responses of the artifacts; the prompt shown is the behaviour's goal, not the attack."""
    for path in sorted(folder.glob("artifacts/*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "jailbreaks" not in data:
            continue
        attack, _, rest = path.stem.partition("__")
        for item in data["jailbreaks"]:
            if item["response"]:
                yield row("jailbreakbench", item["goal"], item["response"], item["behavior"],
                          attack=attack, model=rest.rpartition("__")[2],
                          jailbroken=bool(item["jailbroken"]), place=f"{path.stem}:{item['index']}")


def orbench(folder: Path) -> Iterator[LabelledResponse]:
    """Responses to harmless prompts that sound harmful."""
    path = folder / "ORbench_retain_set.json"
    for item in json.loads(path.read_text(encoding="utf-8")):
        yield row("orbench", item["prompt"], item["gpt_response"], item["prompt"],
                  status=item["status"], model="gpt")


def harmbench(folder: Path) -> Iterator[LabelledResponse]:
    """The opening that each attack of HarmBench aims at: compliance, cut after a sentence."""
    path = folder / "harmbench_targets_text.json"
    for behaviour, target in json.loads(path.read_text(encoding="utf-8")).items():
        label = replace(row("harmbench_targets", behaviour.replace("_", " "), target, behaviour,
                            weight=0.3), label=COMPLIANCE)
        yield label


def preferences(folder: Path) -> Iterator[dict[str, str]]:
    """Pairs of last answers to one dialogue."""
    with gzip.open(folder / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            pair = {name: text.rpartition("\n\nAssistant:")[2].strip()
                    for name, text in json.loads(line).items()}
            if pair["chosen"] and pair["rejected"] and pair["chosen"] != pair["rejected"]:
                yield pair


def dialogues(folder: Path, read: dict[str, str]) -> Iterator[LabelledResponse]:
    """The last answers of dialogues that carry a label given by reading; never trained on."""
    with gzip.open(folder / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            for side, text in json.loads(line).items():
                label = read.get(f"hh_rlhf:{number}:{side}")
                if label is not None:
                    asked, _, answer = text.rpartition("\n\nAssistant:")
                    user = asked.rpartition("\n\nHuman:")[2].strip()
                    yield replace(row("hh_rlhf", user, answer.strip(), f"hh_rlhf {number}"),
                                  label=label)


def refusal_label(item: LabelledResponse, read: dict[str, str]) -> str | None:
    """The three-way label of a real row, by the rules at the top; None if they give none."""
    meta = item.prompt.meta
    if meta.get("place") in read:
        return read[str(meta["place"])]
    first, content, listed = _shape(item.response)
    if "status" in meta:
        if meta["status"] == "1_full_compliance":
            return PARTIAL if first else COMPLIANCE
        return REFUSAL if first and content < 20 else None
    if meta["jailbroken"]:
        return PARTIAL if first else COMPLIANCE
    return REFUSAL if first and not listed and content < 60 else None


def _shape(response: str) -> tuple[bool, int, bool]:
    """Whether the first two sentences refuse; words that are no refusal or moral; any list."""
    parts = sentences(normalise(response))
    cues = [cues_of(part) for part in parts]
    idle = {*REFUSING, "apology", "self", "moral", "urge", "care", "offer_other"}
    content = sum(len(part.split()) for part, c in zip(parts, cues, strict=True) if not c & idle)
    first = any(name in c for c in cues[:2] for name in REFUSING)
    return first, content, any(map(is_list_item, parts))


def three_way(rows: Sequence[LabelledResponse]) -> dict[str, list[LabelledResponse]]:
    """Real rows with a label, and synthetic ones around the bodies of the training part."""
    read = read_labels()
    parts: dict[str, list[LabelledResponse]] = {"train": [], "test": []}
    for item in rows:
        label = item.label or refusal_label(item, read)
        if label is not None:
            parts[part(item.group)].append(replace(item, label=label))
    parts["test"] = [item for item in parts["test"] if item.prompt.source != "harmbench_targets"]
    bodies = [Body(item.group, item.response) for item in parts["train"]
              if item.label == COMPLIANCE and item.prompt.source != "harmbench_targets"]
    parts["train"] += synthetic_refusals(SYNTHETIC_ROWS, bodies + own_bodies(60))
    return parts


def safety(rows: Sequence[LabelledResponse]) -> dict[str, list[LabelledResponse]]:
    """JailbreakBench's flag; harmless prompts' responses are safe. The training part also gets
    synthetic rows, so that neither "Sure, here is" nor a refusing first sentence decides: what
    stands around a body does not change whether the body is unsafe.
    """
    parts: dict[str, list[LabelledResponse]] = {"train": [], "test": []}
    bodies: dict[str, list[Body]] = {"safe": [], "unsafe": []}
    for item in rows:
        if item.prompt.source == "harmbench_targets":
            continue
        label = "unsafe" if item.prompt.meta.get("jailbroken") else "safe"
        chosen = part(item.group)
        parts[chosen].append(replace(item, label=label))
        if chosen == "train" and (label == "unsafe" or item.prompt.source == "orbench"):
            bodies[label].append(Body(item.group, item.response))
    for label, pool in bodies.items():
        texts: dict[str, list[str]] = {body.key: [] for body in pool}
        for body in pool:
            texts[body.key].append(body.text)
        for item in synthetic_refusals(2400, pool, seed=1) if pool else ():
            used = any(_shares_a_line(item.response, text) for text in texts[item.group])
            parts["train"].append(replace(item, label=label if used else "safe"))
    return parts


def _shares_a_line(response: str, body: str) -> bool:
    """Whether a synthetic response holds something of a body: many refusals hold nothing."""
    heard = normalise(response)
    return any(len(line) > 12 and line[1:] in heard for line in sentences(normalise(body)))


def main() -> None:
    """Read, label, split, write, and say what was written."""
    parser = argparse.ArgumentParser(description="Labelled responses for the light verifiers.")
    parser.add_argument("folder", type=Path, help="folder of public data")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    rows: list[LabelledResponse] = []
    for reader in (jailbreakbench, orbench, harmbench):
        folder = arguments.folder / reader.__name__
        if folder.is_dir():
            rows += reader(folder)
        else:
            print(f"{folder}: not there, left out")
    if not rows:
        sys.exit(f"error: {arguments.folder} holds none of the data")
    for name, parts in (("three_way", three_way(rows)), ("safety", safety(rows))):
        for which, chosen in parts.items():
            path = arguments.out / f"{name}.{which}.jsonl"
            write_responses(path, chosen)
            counts = Counter((item.prompt.source, item.label or "") for item in chosen)
            print(f"{path}: {len(chosen)} rows")
            for (source, label), count in sorted(counts.items()):
                print(f"  {source:20} {label:18} {count}")
    if (arguments.folder / "hh_rlhf").is_dir():
        path = arguments.out / "preferences.jsonl"
        pairs = list(preferences(arguments.folder / "hh_rlhf"))
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        print(f"{path}: {len(pairs)} pairs")
        path = arguments.out / "dialogues.test.jsonl"
        count = write_responses(path, dialogues(arguments.folder / "hh_rlhf", read_labels()))
        print(f"{path}: {count} rows")


if __name__ == "__main__":
    main()
