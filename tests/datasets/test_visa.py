"""VisA, by its own split."""

from __future__ import annotations

import pytest

from stlm_edge.datasets import categories, load_category, read_truth
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
    (visa / "candle" / "Data" / "Masks" / "Anomaly" / "000.png").unlink()
    with pytest.raises(DataError, match=r"2 of 8 files .* for candle are missing, the first is .*0001\.JPG"):
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
        ("object,split,label,image,mask\ncandle,test,anomaly,a.png,\n", "no path of the picture or of its mask"),
        ("object,split,label,image,mask\ncandle,test,normal\n", "no path of the picture"),
        ("object,split,label,image,mask\n", "no category 'candle'"),
    ],
)
def test_damaged_split_is_refused_with_its_line(visa, text, words):
    split_file(visa).write_text(text)
    with pytest.raises(DataError, match=words):
        load_category(visa, "candle")


def test_split_that_is_no_text_is_refused(visa):
    split_file(visa).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="cannot be read as VisA's split"):
        load_category(visa, "candle")


def test_split_saved_by_a_spreadsheet_is_read(visa):
    text = split_file(visa).read_text().replace("\n", "\r\n")
    split_file(visa).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load_category(visa, "candle").train) == 3
