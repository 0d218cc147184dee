"""How much better our models predict held-out books than characters can be counted.

    python benchmarks/bits_per_byte.py --corpus data/mystery --books corpora/mystery --model mystery

Character frequencies and an order-3 character model learn all training works, then every text is
scored on the held-out ones. Prints one row each; takes minutes.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from storygen import checkpoints  # noqa: E402
from storygen.catalogue import Catalogue  # noqa: E402
from storygen.corpora.prepare import stories  # noqa: E402
from storygen.train.evaluate import Score, score_text  # noqa: E402
from tests.reference.char_model import CharModel, bits_per_byte  # noqa: E402


def main() -> None:
    """Score baselines and model on the held-out works of a prepared corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    works = json.loads((args.corpus / "meta.json").read_text(encoding="utf-8"))["works"]

    def texts(split: str) -> list[str]:
        names = [work["name"] for work in works if work["split"] == split]
        return [s for n in names for s in stories((args.books / n).read_text(encoding="utf-8"))]

    held_out = texts("val")
    size = sum(len(text.encode("utf-8")) for text in held_out)
    for order, name in ((0, "character frequencies"), (3, "order-3 characters")):
        model = CharModel(order)
        for text in texts("train"):
            for i in range(len(text)):
                model.learn(text, i)
        bits = sum(bits_per_byte(model, t, adapt=False) * len(t.encode("utf-8")) for t in held_out)
        print(f"{name:24} {bits / size:.3f} bits per byte", flush=True)
    gpt, tokenizer = checkpoints.load(Catalogue(ROOT / "weights").get(args.model).directory)
    total = Score(0, 0, 0.0)
    for text in held_out:
        total += score_text(gpt, tokenizer, text)
    print(f"{args.model:24} {total.bits_per_byte:.3f} bits per byte")


if __name__ == "__main__":
    main()
