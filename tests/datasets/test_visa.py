"""VisA, by its own split."""

from __future__ import annotations

import pytest

from stlm_edge.datasets import categories, check_masks, load_category, read_truth
from stlm_edge.errors import DataError, ImageError
from stlm_edge.masks import read_mask


def split_file(visa):
    return visa / "split_csv" / "1cls.csv"


def test_pictures_are_divided_as_the_split_says(visa):
    category = load_category(visa, "candle")
    assert category.name == "candle"
    assert [sample.path.name for sample in category.train] == ["0000.JPG", "0001.JPG", "0002.JPG"]
    assert all(sample.label == "good" and sample.mask is None for sample in category.train)
    assert [(sample.label, sample.path.name) for sample in category.test] == [
        ("anomaly", "000.JPG"),
        ("anomaly", "001.JPG"),
        ("good", "0003.JPG"),
    ]
    assert category.test[1].mask == visa / "candle" / "Data" / "Masks" / "Anomaly" / "001.png"


def test_any_class_number_in_a_mask_is_a_defect(visa):
    for sample in load_category(visa, "candle").test[:2]:
        assert read_truth(sample, size=(12, 16)).sum() == 8


def test_good_picture_has_no_defective_pixel(visa):
    truth = read_truth(load_category(visa, "candle").test[-1], size=(12, 16))
    assert truth.shape == (12, 16)
    assert not truth.any()


def test_mask_of_class_numbers_is_not_taken_for_an_ordinary_one(visa):
    sample = load_category(visa, "candle").test[0]
    with pytest.raises(ImageError, match="values up to 1 and none above half of 255"):
        read_mask(sample.mask, size=(12, 16))


def test_category_folder_itself_can_be_given(visa):
    assert load_category(visa / "candle", None) == load_category(visa, "candle")


def test_categories_are_those_of_the_split(visa):
    (visa / "notes").mkdir()
    assert categories(visa) == ["candle", "pcb2", "pcb10"]


def test_categories_with_numbers_of_any_length_are_in_their_order(visa):
    names = ["pcb9", "pcb010", "pcb11", f"pcb{'9' * 5000}"]
    lines = [f"{name},train,normal,{name}.png," for name in reversed(names)]
    split_file(visa).write_text("\n".join(["object,split,label,image,mask", *lines]))
    assert categories(visa) == names


def test_category_that_is_not_there_is_refused_with_those_that_are(visa):
    with pytest.raises(DataError, match=r"no category 'bottle', found candle, pcb2, pcb10"):
        load_category(visa, "bottle")
    with pytest.raises(DataError, match=r"categories candle, pcb2, pcb10; choose one"):
        load_category(visa, None)


def test_category_without_the_split_is_refused(visa):
    split_file(visa).unlink()
    for folder, category in ((visa / "candle", None), (visa, "candle")):
        with pytest.raises(DataError, match=r"looks like a category of VisA but .*1cls\.csv does not exist"):
            load_category(folder, category)


def test_missing_files_are_counted_and_the_first_is_named(visa):
    (visa / "candle" / "Data" / "Images" / "Normal" / "0001.JPG").unlink()
    (visa / "candle" / "Data" / "Images" / "Normal" / "0002.JPG").unlink()
    with pytest.raises(DataError, match=r"2 of 6 pictures .* for candle are missing, the first is .*0001\.JPG"):
        load_category(visa, "candle")
    assert load_category(visa, "pcb10").name == "pcb10"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the columns object, split, label, image, mask"),
        ("object,split,label,image\n", "lacks the columns mask"),
        ("object,split,label,image,mask\ncandle,validation,normal,a.png,\n", "line 2: found 'validation'"),
        ("object,split,label,image,mask\ncandle,test,bad,a.png,\n", "'bad', expected train or test"),
        ("object,split,label,image,mask\ncandle,train,anomaly,a.png,b.png\n", "an anomaly to train on"),
        ("object,split,label,image,mask\ncandle,test,normal\n", "no path of the picture"),
        ("object,split,label,image,mask\n", "names no pictures"),
        ("object|split|label|image|mask\n", r"lacks .*: found 'object\|split.*expected .* commas, semicolons, tabs"),
        ("object,split,label,image,mask,image\n", "image as the name of several columns"),
        ("object,split,label,image,mask\ncandle,test,normal,a,b.png,c.png\n", "line 2: found 6 fields, expected 5"),
        ('object,split,label,image,mask\n"candle,test,normal,a.png,\n', "cannot be read as VisA's split"),
        ("object,split,label,image,mask\n../x,train,normal,a.png,\n", "'../x' as the object, expected the name of a"),
        ("object,split,label,image,mask\n,train,normal,a.png,\n", "'' as the object"),
        ("object,split,label,image,mask\ncandle,train,normal,/etc/a.png,\n", "line 2: found the path '/etc/a.png'"),
        ("object,split,label,image,mask\ncandle,train,normal,../a.png,\n", r"'\.\./a.png', expected one below VisA's"),
        ("object,split,label,image,mask\ncandle,train,normal,a\\..\\..\\b.png,\n", "line 2: found the path"),
        ("object,split,label,image,mask\ncandle,train,normal,C:\\a.png,\n", r"'C:.*a\.png', expected one below"),
        ("object,split,label,image,mask\ncandle,test,anomaly,a.png,/tmp/m.png\n", "found the path '/tmp/m.png'"),
        ("object,split,label,image,mask\ncandle,train,normal,a\x00.png,\n", "found the path|cannot be read"),
        (f"object,split,label,image,mask\ncandle,train,normal,{'x' * 9000}.png,\n", "1 of 1 pictures .* are missing"),
        (f"object,split,label,image,mask\ncandle,train,normal,{'[' * 200000}\n", "cannot be read as VisA's split"),
    ],
)
def test_damaged_split_is_refused_with_its_line(visa, text, words):
    split_file(visa).write_text(text)
    with pytest.raises(DataError, match=words):
        load_category(visa, "candle")


def test_split_that_is_no_text_is_refused(visa):
    for content in (b"\xff\xfe\x00", b"object,split,label,image,mask\ncandle,train,normal,\xe4.png,\n"):
        split_file(visa).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as VisA's split"):
            load_category(visa, "candle")


def backslashes(text: str) -> str:
    return text.replace("/", "\\")


def other_order(text: str) -> str:
    rows = [line.split(",") for line in text.splitlines()]
    return "\n".join(",".join((row[3], "", row[4], row[0], row[2], row[1])) for row in rows)


WRITTEN = {
    "byte-order mark and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "old Macintosh": lambda text: text.replace("\n", "\r").encode(),
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs in UTF-16": lambda text: text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "backslashes": lambda text: backslashes(text).encode(),
    "quotes": lambda text: "\n".join(
        ",".join(f'"{field}"' for field in line.split(",")) for line in text.splitlines()
    ).encode(),
    "another order and an empty column": lambda text: other_order(text).encode(),
    "capitals and blanks": lambda text: text.replace("object", "Object ").replace(",train,", ", TRAIN ,").encode(),
    "empty lines": lambda text: (text.replace("\n", "\n\n") + ",,,,\n").encode(),
    "no comma at the end": lambda text: text.replace(",\n", "\n").encode(),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_split_that_another_program_has_written_is_read(visa, written):
    wanted = load_category(visa, "candle")
    split_file(visa).write_bytes(WRITTEN[written](split_file(visa).read_text()))
    assert load_category(visa, "candle") == wanted
    assert categories(visa) == ["candle", "pcb2", "pcb10"]


def test_line_that_stands_there_twice_counts_once_and_is_told(visa, caplog):
    wanted = load_category(visa, "candle")
    text = split_file(visa).read_text()
    split_file(visa).write_text(text + text.split("\n", 1)[1])
    assert load_category(visa, "candle") == wanted
    assert "says 9 of its lines twice" in caplog.text


def test_picture_that_is_trained_on_and_tested_is_told(visa, caplog):
    with split_file(visa).open("a") as file:
        file.write("candle,test,normal,candle/Data/Images/Normal/0000.JPG,\n")
    assert len(load_category(visa, "candle").test) == 4
    assert "TESTED ON TRAINING PICTURES" in caplog.text
    assert "names 1 of its pictures for both" in caplog.text


@pytest.mark.parametrize("words", ["candle,test,anomaly", "pcb2,train,normal"])
def test_picture_that_is_named_twice_with_other_words_is_refused(visa, words):
    with split_file(visa).open("a") as file:
        file.write(f"{words},candle/Data/Images/Normal/0000.JPG,\n")
    with pytest.raises(DataError, match=r"line 11: found candle/Data/Images/Normal/0000\.JPG a second time"):
        load_category(visa, "candle")


def test_anomaly_without_a_mask_has_its_label_alone(visa):
    text = split_file(visa).read_text().replace("candle/Data/Masks/Anomaly/000.png", "")
    split_file(visa).write_text(text)
    first, second, _ = load_category(visa, "candle").test
    assert (first.label, first.mask) == ("anomaly", None)
    assert read_truth(first, size=(12, 16)) is None
    assert second.mask is not None


def test_missing_mask_stops_only_what_looks_at_pixels(visa):
    (visa / "candle" / "Data" / "Masks" / "Anomaly" / "000.png").unlink()
    category = load_category(visa, "candle")
    assert [sample.label for sample in category.test] == ["anomaly", "anomaly", "good"]
    with pytest.raises(DataError, match=r"Anomaly/000\.JPG has no mask, .* names .*000\.png, which is missing"):
        check_masks(category.test)


def test_links_to_pictures_elsewhere_are_followed(visa, tmp_path):
    wanted = load_category(visa, "candle")
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(visa.rglob("*.JPG"))):
        path.rename(store / f"{number}.bin")
        path.symlink_to(store / f"{number}.bin")
    assert load_category(visa, "candle") == wanted


def test_mask_of_a_good_picture_must_be_black(visa, tmp_path):
    text = split_file(visa).read_text()
    name = "candle/Data/Masks/Anomaly/000.png"
    split_file(visa).write_text(text.replace("Normal/0003.JPG,", f"Normal/0003.JPG,{name}"))
    sample = load_category(visa, "candle").test[-1]
    with pytest.raises(ImageError, match=r"marks 8 pixels of .*0003\.JPG, labelled good"):
        read_truth(sample, size=(12, 16))


def test_mask_of_two_anomalies_is_refused_where_pixels_are_judged(visa):
    text = split_file(visa).read_text()
    split_file(visa).write_text(text.replace("Masks/Anomaly/001.png", "Masks/Anomaly/000.png"))
    samples = load_category(visa, "candle").test
    with pytest.raises(DataError, match=r"000\.png, which .*1cls\.csv gives to 2 pictures, expected a mask for each"):
        check_masks(samples)


def test_split_without_a_line_says_so(visa):
    split_file(visa).write_text("object,split,label,image,mask\n")
    with pytest.raises(DataError, match=r"1cls\.csv names no pictures; fetch it again"):
        load_category(visa, "candle")
