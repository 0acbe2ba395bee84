from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parents[2]


def test_committed_code_is_what_protoc_makes_of_the_proto_file(tmp_path: Path) -> None:
    proto = "splitinfer/wire/splitinfer.proto"
    assert protoc.main(["protoc", f"-I{ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", proto]) == 0
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in made] == ["splitinfer_pb2.py", "splitinfer_pb2.pyi"]
    for path in made:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), "run make proto"
