from pathlib import Path

from splitinfer.wire.generate import GENERATED, PROTO, generate


def test_committed_code_is_what_protoc_makes_of_the_proto_file(tmp_path: Path) -> None:
    made = generate(tmp_path)
    assert [path.name for path in made] == list(GENERATED)
    for path in made:
        assert path.read_text() == (PROTO.parent / path.name).read_text(), "run python -m splitinfer.wire.generate"
