"""What is published, by name: what both versions send alike, and what this one corrects."""

import datetime
import decimal
import uuid

DATA = {
    "text": "hello",
    "dictionary": {"message": "Hello!", "number": 1},
    "list": [1, "two", None, [3.5, {}]],
    "integer": 7,
    "zero": 0,
    "float": 0.1,
    "true": True,
    "false": False,
    "none": None,
    "empty dictionary": {},
    "empty list": [],
    "unsorted": {"b": 1, "a": 2},
    "uuid": uuid.UUID(int=7),
    "date": datetime.date(2024, 2, 29),
    "datetime": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
    "decimal": decimal.Decimal("1.10"),
    "umlauts": {"text": "Grüße, 日本語, \U0001f980"},
    "html": {"html": "<b>&amp;</b>"},
    "line ends in JSON": {"text": "one\ntwo\r\nthree\u2028four"},
    "tuple": (1, 2),
}

TEXTS = {
    "one line": "hello",
    "several lines": "one\ntwo\nthree",
    "empty line within": "one\n\ntwo",
    "carriage returns": "one\rtwo\r\nthree",
    "unicode": "Grüße, 日本語, \U0001f980, \u00a0",
    "colon": "data: not a field: of the stream",
    "looks like fields": "event: x\nid: 7\n:comment",
    "JSON in text": '{"a": "\\n"}',
    "NUL": "a\0b",
    "tab": "\ta",
    "byte order mark": "\ufeffa",
    "long": "x" * 100_000,
}

CORRECTED = {
    "line end at the end": "one\n",
    "space at the beginning": " one",
    "line separator": "one\u2028two",
    "next line": "one\x85two",
    "form feed": "one\x0ctwo",
    "file separator": "one\x1ctwo",
    "empty": "",
    "one line end": "\n",
}

ARGUMENTS = {
    "positional": (("hello", "greeting", "7", 5000), {}),
    "type": (("hello",), {"type": "greeting"}),
    "number as type": (("hello",), {"type": 12}),
    "text as id": (("hello",), {"id": "abc"}),
    "number as id": (("hello",), {"id": 7}),
    "uuid as id": (("hello",), {"id": uuid.UUID(int=7)}),
    "float as id": (("hello",), {"id": 1.5}),
    "datetime as id": (("hello",), {"id": datetime.date(2024, 2, 29)}),
    "number as retry": (("hello",), {"retry": 5000}),
    "text as retry": (("hello",), {"retry": "5000"}),
    "everything": (({"a": 1},), {"type": "t", "id": 7, "retry": 100}),
    "everything as text": (({"a": 1},), {"type": "t", "id": "7", "retry": "100"}),
    "None": (("hello",), {"type": None, "id": None, "retry": None}),
    "empty type": (("hello",), {"type": ""}),
    "unicode in type": (("hello",), {"type": "gruß", "id": "日本"}),
    "space in type": (("hello",), {"type": "a b ", "id": "7 "}),
}

CORRECTED_ARGUMENTS = {
    "zero as id": (("hello",), {"id": 0}),
    "empty id": (("hello",), {"id": ""}),
    "zero as retry": (("hello",), {"retry": 0}),
    "space before type and id": (("hello",), {"type": " a", "id": " 7"}),
}
