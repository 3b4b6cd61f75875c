"""Fuzzes one target with atheris: `python tests/fuzz/run.py TARGET FOLDER [libFuzzer's options]`.

FOLDER keeps the corpus, so that a later run goes on where this one ended; what breaks a target is
left there as crash-..., timeout-... or oom-....
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["openinference", "targets"]):
    import targets

import seeds


def main() -> None:
    """The command."""
    name, folder, *options = sys.argv[1:]
    decoders = [decoder.__name__ for decoder in targets.DECODERS]
    corpus = Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds.of(name, decoders)):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = Path(folder) / "words.dict"
    dictionary.write_text("".join(f'"{word}"\n' for word in sorted(seeds.words())))
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-dict={dictionary}",
            f"-artifact_prefix={folder}/{name}-",
            "-print_final_stats=1",
            "-timeout=10",
            "-max_len=4096",
            *options,
        ],
        targets.TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
