"""``blurdm app``: the page in a real browser, with a photo and with hostile files; who may ask; what is left behind."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from blurdm.app.worker import KEPT
from blurdm.restore.models import export_model, find_model
from blurdm.restore.photo import decode_photo
from blurdm.restore.restorer import Restorer
from blurdm.restore.trained_on import KEY
from tests.restore.test_photo_fuzz import BUDGET_MB, HOSTILE, NUMBER, SLOWEST, damaged, huge_text
from tests.support.app import Served, serving
from tests.support.chromium import Browser, browser
from tests.support.photos import described, encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told
from tests.support.tools import require

BROKEN = ("{}", "[]", "", "null", '{"stage": 3}', '{"stage": "joint", "sections": []}', "[" * 100_000)
SHOWN = "document.querySelectorAll('.results section').length"
DONE = "!document.querySelector('form').classList.contains('busy')"
WATCH = """window.seen = []; new MutationObserver(() => seen.push(document.querySelector('progress').value))
  .observe(document.querySelector('progress'), {attributes: true, attributeFilter: ['value']})"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs as ``blurdm run --export`` leaves them, and one that restores nothing."""
    folder = tmp_path_factory.mktemp("models")
    run_folder(folder / "baseline" / "seed0", "baseline", paper_diffusion())
    run_folder(folder / "joint" / "seed0", "joint", paper_diffusion(beta_end=0.9))
    run_folder(folder / "other" / "seed0", "direct", paper_diffusion())
    config = json.loads((folder / "other" / "seed0" / "config.json").read_text())
    (folder / "other" / "seed0" / "config.json").write_text(json.dumps(config | {"stage": "pretrain"}))
    result = json.loads((folder / "joint" / "seed0" / "result.json").read_text())
    (folder / "joint" / "seed0" / "result.json").write_text(json.dumps(result | {KEY: "rain & <b>snow</b>"}))
    for number, text in enumerate(BROKEN):
        broken = folder / "broken" / f"{number}<i>\udcff"
        broken.mkdir(parents=True)
        for name in ("config.json", "result.json"):
            (broken / name).write_text(text)
    shutil.copytree(folder / "baseline" / "seed0", folder / "broken" / "weights")
    os.truncate(folder / "broken" / "weights" / "weights.safetensors", 1000)
    return folder


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app"), "--models", models, "--memory", f"{BUDGET_MB}MB") as app:
        yield app


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require("chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def cat() -> Path:
    """A packaged photo of 451 x 300 px."""
    spec = find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / "chelsea.png"


def choose(window: Browser, *names: str) -> None:
    """Tick the boxes of these models and of no other."""
    boxes = window.run("[...document.querySelectorAll('[name=model]')].map(box => [box.value, box.checked])")
    for name, ticked in boxes:
        if ticked != (name in names):
            window.click(f"[value='{name}']")


@pytest.mark.parametrize("width", [1200, 375])
def test_drop_watch_compare_and_save(served: Served, window: Browser, models: Path, tmp_path: Path, width: int) -> None:
    window.open(served.address, width)
    choose(window, "baseline/seed0", "joint/seed0")
    window.run(WATCH)
    window.drop(".drop", cat())
    window.wait(f"{DONE} && {SHOWN} == 2")
    seen = window.run("seen")
    assert seen == sorted(seen) and {0.5, 1} <= set(seen), "progress grows"
    window.click(".slider input", across=0.8)
    moved = "[...document.querySelectorAll('.slider')].map(s => [s.querySelector('input').value, s.style.cssText])"
    assert window.run(moved) == [["80", "--at: 80%;"]] * 2, "both move together"
    window.save_to(tmp_path)
    window.click("section:nth-child(2) .save")
    saved = tmp_path / "chelsea-joint-seed0.png"
    while not saved.exists():
        time.sleep(0.05)
    content = decode_photo(cat().read_bytes(), "cat")
    restored = Restorer(find_model(models / "joint" / "seed0"), memory=f"{BUDGET_MB}MB").restore(content.pixels)
    np.testing.assert_array_equal(np.array(Image.open(saved)), restored)
    assert window.run("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on a phone"
    window.screenshot(tmp_path / "seen.png", whole=True)
    assert window.complaints == []
    assert [r for r in window.requests if not r.startswith(("data:", served.address + "/"))] == []


def test_a_broken_model_is_listed_with_its_reason_and_the_others_work(served: Served, window: Browser) -> None:
    window.open(served.address)
    labels = window.run("[...document.querySelectorAll('label:has([name=model])')].map(l => l.innerText.trim())")
    states = window.run("[...document.querySelectorAll('[name=model]')].map(box => box.disabled)")
    broken = [label for label in labels if label.startswith("broken/")]
    assert len(broken) == len(BROKEN) + 1 == sum(states)
    assert all(re.fullmatch(r"broken/\S+ cannot be used: .{10,300}", label) for label in broken), broken
    assert "photos trained on an unsteady hand, blur of 0.5 to 18 px" in labels
    assert "joint/seed0 trained on rain & <b>snow</b>" in labels
    assert "baseline/seed0 trained on what is not recorded" in labels
    status, events = served.post(encoded(picture(), "PNG"), model="broken/weights")
    assert status == 400 and "'broken/weights' can be used" in events[0]["error"]


@pytest.mark.parametrize(
    ("sharp_below", "coarse_above", "said"),
    [(1e9, 0.0, "Sharp: left as it is."), (0.0, 1e-9, "Long blur: restored from 1/4 of its size on.")],
)
def test_the_page_says_what_was_found(
    models: Path, tmp_path: Path, sharp_below: float, coarse_above: float, said: str
) -> None:
    file = tmp_path / "careful.safetensors"
    export_model(models / "baseline" / "seed0", file, "", sharp_below, coarse_above)
    with serving(tmp_path, "--models", models, "--model", file) as app:
        found, plain = (
            app.post(encoded(picture(287, 261), "PNG"), model=m)[1][-1] for m in (str(file), "baseline/seed0")
        )
    assert f"<p>{said}</p>" in found["result"] and said not in plain["result"]


def test_a_hostile_file_is_one_clear_line_and_the_next_photo_goes_on(
    served: Served, window: Browser, tmp_path: Path
) -> None:
    window.open(served.address)
    choose(window, "baseline/seed0")
    for name, content in {"<img src=x onerror=alert(1)>.png": huge_text()[:90], "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        window.drop(".drop", tmp_path / name)
        window.wait(f"{DONE} && !document.querySelector('.error').hidden")
        told = window.run("document.querySelector('.error').textContent")
        assert told.startswith(f"{name}: damaged or not a photo") and "Traceback" not in told and "\n" not in told
        assert window.run(SHOWN) == 0
    window.drop(".drop", cat())
    window.wait(f"{DONE} && {SHOWN} == 1")
    assert window.run("document.querySelector('.error').hidden")
    choose(window)
    window.drop(".drop", cat())
    window.wait("document.querySelector('.error').textContent.includes('no model is chosen')")
    assert [line for line in window.complaints if "400" not in line] == []


def test_an_odd_name_is_shown_as_text_and_saved_under_a_plain_name(served: Served) -> None:
    name = '../../<b>&"\n\x1b[31m.jpg'
    status, events = served.post(described(picture(), "JPEG"), name, "baseline/seed0")
    (html,) = (event["result"] for event in events if "result" in event)
    assert status == 200 and "<b>" not in html
    (address,) = re.findall('href="([^"]+)"', html)
    _, headers, content = served.get(f"/{address}")
    disposition = headers["content-disposition"]
    assert disposition.startswith("attachment") and disposition.isprintable() and "/" not in disposition
    assert headers["content-type"] == "application/octet-stream"
    assert Image.open(io.BytesIO(content)).getexif()[0x010F] == "Maker", "the file says what it said"


def test_all_damaged_and_hostile_photos_through_the_page(served: Served) -> None:
    """The contents of tests/restore/test_photo_fuzz.py, all 500, each sent as the page sends a photo."""
    contents = [make() for make in HOSTILE]
    contents += [damaged(number) for number in range(NUMBER - len(contents))]
    restored = 0
    for number, content in enumerate(contents):
        started = served.seconds()
        status, events = served.post(content, f"{number}.jpg", "baseline/seed0")
        last = events[-1]
        assert status == 200 and ("result" in last) != ("error" in last), (number, events)
        assert "\n" not in last.get("error", "") and "Traceback" not in last.get("error", ""), last
        assert served.seconds() - started < SLOWEST
        restored += "result" in last
    assert 100 < restored < 300
    assert served.kept() <= KEPT
    assert served.peak_mb() < BUDGET_MB


def test_of_a_large_photo_the_middle_is_shown_as_large_as_it_is(served: Served) -> None:
    _, events = served.post(encoded(picture(90, 1700), "JPEG"), model="baseline/seed0")
    (html,) = (event["result"] for event in events if "result" in event)
    shown = [Image.open(io.BytesIO(base64.b64decode(part))).size for part in re.findall(r'base64,([^"]+)"', html)]
    assert shown == [(1600, 85)] * 2 + [(700, 90)] * 2


def test_other_pages_and_names_are_refused(served: Served) -> None:
    photo = encoded(picture(), "PNG")
    host = urlsplit(served.address).netloc
    for origin in ("http://evil.example", "null", "http://localhost:80", ""):
        status, events = served.post(photo, model="baseline/seed0", Origin=origin)
        assert status == 403 and served.address in events[0]["error"], origin
    for name in ("evil.example", f"evil.example:{host.rpartition(':')[2]}", "127.0.0.1"):
        assert served.get("/", name)[0] == 403, name  # a name that was made to point here
    assert served.post(photo, model="nane")[0] == 400
    for path in ("/results/x", "/results/..%2f..%2fetc%2fpasswd", "/restore", "/docs", "/../pyproject.toml"):
        assert served.get(path)[0] in (404, 405), path


def test_the_page_may_load_and_ask_nothing_else(served: Served, window: Browser) -> None:
    _, headers, _ = served.get("/")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not any(name.lower().startswith("access-control") for name in headers)
    window.open(served.address)
    tried = "fetch('http://127.0.0.1:9/').then(() => 'got', (error) => 'refused')"
    assert window.run(tried) == "refused" and any("connect-src" in line for line in window.complaints)


def test_a_file_that_is_too_large_is_refused_before_it_is_all_sent(served: Served) -> None:
    status, events = served.post(b"", model="baseline/seed0", **{"Content-Length": str(1 << 40)})
    assert status == 413 and "larger than 256 MB" in events[0]["error"]
    assert served.post(encoded(picture(), "PNG"), model="baseline/seed0")[0] == 200, "the next one goes on"


def test_one_photo_at_a_time_and_a_browser_that_leaves_stops_it(served: Served) -> None:
    large = encoded(picture(2000, 2000), "JPEG")
    connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=60)
    connection.request("POST", "/restore?model=joint/seed0", large, {"Origin": served.address})
    answer = connection.getresponse()
    assert answer.readline()
    status, events = served.post(encoded(picture(), "PNG"), model="baseline/seed0")
    assert status == 503 and "another photo" in events[0]["error"]
    answer.close()
    connection.close()
    before, end = served.kept(), time.monotonic() + 30
    while served.post(encoded(picture(), "PNG"), model="baseline/seed0")[0] == 503:
        assert time.monotonic() < end
    assert served.kept() <= before + 1, "what nobody waits for is not stored"


def test_a_port_that_is_taken_and_a_missing_model_are_one_line(blurdm: Any, served: Served, tmp_path: Path) -> None:
    port = urlsplit(served.address).port
    told: Told = blurdm("app", "--port", port, "--model", "photos")
    assert told.code == 2 and told.complaints == [
        f"blurdm: --port {port}: Address already in use; give another, or 0 for any that is free"
    ]
    told = blurdm("app", "--port", 70000, "--model", "photos")
    assert told.code == 2 and len(told.complaints) == 1 and "--port: '70000'" in told.complaints[0]
    told = blurdm("app", "--model", "nane")
    assert told.code == 2 and "'nane' is not known" in told.complaints[0]
    for name in ("config.json", "result.json"):
        (tmp_path / name).write_text("{}")
    told = blurdm("app", "--model", tmp_path)
    assert told.code == 2 and len(told.complaints) == 1 and str(tmp_path) in told.complaints[0]
    told = blurdm("app", "--memory", "much")
    assert told.code == 2 and "should be a size such as 2GB" in told.complaints[0]
