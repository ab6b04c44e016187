"""Section 1, conversions of body values, and section 2, the 422 body, on the requests of sections 4 and 5.

A request that passes the validation fails here at its last check, the missing paths, with a 400: nothing is started."""

import json
import unittest

from tests.api.harness import DaemonCase

TRAIN = {"model": "resnet18", "num_classes": 2, "train_path": "/nowhere/t", "val_path": "/nowhere/v", "save_path": "o"}
INFER = {"cfg_path": "/nowhere/c", "weight_path": "/nowhere/w", "source_path": "/nowhere/s"}
BATCH = {"cfg_path": "/nowhere/c", "weight_path": "/nowhere/w", "source_paths": ["/nowhere/s"]}

MESSAGES = {
    "missing": "Field required",
    "int_type": "Input should be a valid integer",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "float_type": "Input should be a valid number",
    "float_parsing": "Input should be a valid number, unable to parse string as a number",
    "string_type": "Input should be a valid string",
    "bool_type": "Input should be a valid boolean",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "list_type": "Input should be a valid list",
    "dict_type": "Input should be a valid dictionary",
}


class Validation(DaemonCase):
    def train(self, **fields):
        return self.daemon.post("/api/v2/training/start", dict(TRAIN, **fields))

    def accepted(self, response):
        """The form was right: the checks of the contents spoke."""
        self.assertEqual((response.status_code, response.json()), (400, {"detail": "训练集路径不存在: /nowhere/t"}))

    def refused(self, response, kind, loc, value, ctx=None):
        self.assertEqual(response.status_code, 422, response.text)
        fault, = response.json()["detail"]
        self.assertEqual((fault["type"], fault["loc"]), (kind, loc))
        self.assertEqual(fault["input"], value)
        if kind in MESSAGES:
            self.assertEqual(fault["msg"], MESSAGES[kind])
        self.assertEqual(fault.get("ctx"), ctx)

    # -- missing fields --

    def test_all_missing_in_the_order_of_the_table(self):
        for path, fields in (("/api/v2/training/start", TRAIN), ("/api/v2/inference/start", INFER),
                             ("/api/v2/inference/batch", BATCH)):
            response = self.daemon.post(path, {"x": 1})
            self.assertEqual(response.status_code, 422)
            self.assertEqual([(f["type"], f["loc"], f["msg"], f["input"]) for f in response.json()["detail"]],
                             [("missing", ["body", name], "Field required", {"x": 1}) for name in fields])

    def test_faults_come_in_the_order_of_the_table(self):
        response = self.train(priority=0, batch_size=0, model=7, image_size="x")
        self.assert_faults(response, ("string_type", ("body", "model")), ("greater_than_equal", ("body", "batch_size")),
                           ("int_parsing", ("body", "image_size")), ("greater_than_equal", ("body", "priority")))

    def test_unknown_fields_are_ignored(self):
        self.accepted(self.train(unknown=1, another={"a": []}))

    # -- integers --

    def test_integers(self):
        for value in (4, 4.0, "4", " 4 ", "+4", "4.0", "1_000", True, "0004"):
            with self.subTest(value=value):
                self.accepted(self.train(batch_size=value))

    def test_not_integers(self):
        for value, kind in ((4.5, "int_from_float"), ("4.5", "int_parsing"), ("vier", "int_parsing"),
                            ("", "int_parsing"), ("4 4", "int_parsing"), ("0x4", "int_parsing"), (None, "int_type"),
                            ([4], "int_type"), ({"a": 4}, "int_type")):
            with self.subTest(value=value):
                self.refused(self.train(batch_size=value), kind, ["body", "batch_size"], value)

    def test_bounds(self):
        for field, value, kind, ctx, text in (
                ("batch_size", 0, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("batch_size", False, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("batch_size", -3, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("num_epochs", 0, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("image_size", 31, "greater_than_equal", {"ge": 32}, "greater than or equal to 32"),
                ("num_classes", 0, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("priority", 0, "greater_than_equal", {"ge": 1}, "greater than or equal to 1"),
                ("priority", 11, "less_than_equal", {"le": 10}, "less than or equal to 10"),
                ("learning_rate", 0, "greater_than", {"gt": 0.0}, "greater than 0"),
                ("learning_rate", -0.5, "greater_than", {"gt": 0.0}, "greater than 0")):
            with self.subTest(field=field, value=value):
                response = self.train(**{field: value})
                self.refused(response, kind, ["body", field], value, ctx)
                self.assertEqual(response.json()["detail"][0]["msg"], "Input should be " + text)

    def test_bound_of_a_float_is_a_float(self):
        self.assertIn('"ctx":{"gt":0.0}', self.train(learning_rate=0).text.replace(" ", ""))

    def test_huge_integers(self):
        for value in ("9" * 30, "-" + "9" * 30):
            response = self.daemon.post("/api/v2/training/start", data=json.dumps(TRAIN)[:-1].encode() +
                                        f', "num_epochs": {value}}}'.encode())
            self.assertEqual((value, response.status_code), (value, 422))

    # -- floats --

    def test_floats(self):
        for value in (0.1, 1, "1e-3", " 0.5 ", True, "1"):
            with self.subTest(value=value):
                self.accepted(self.train(learning_rate=value))

    def test_not_floats(self):
        for value, kind in (("x", "float_parsing"), ("", "float_parsing"), ("0,1", "float_parsing"),
                            (None, "float_type"), ([], "float_type"), ({}, "float_type")):
            with self.subTest(value=value):
                self.refused(self.train(learning_rate=value), kind, ["body", "learning_rate"], value)

    def test_infinite_floats_are_refused(self):
        for value in ("nan", "inf", "-inf", "Infinity"):
            with self.subTest(value=value):
                self.assertEqual(self.train(learning_rate=value).status_code, 422)

    # -- strings --

    def test_not_strings(self):
        for value in (1, 1.5, True, [], {}):
            self.refused(self.train(model=value), "string_type", ["body", "model"], value)
        self.refused(self.train(model=None), "string_type", ["body", "model"], None)
        self.refused(self.train(device=None), "string_type", ["body", "device"], None)

    def test_nullable(self):
        self.accepted(self.train(name=None, weight_path=None, task_id=None, description=None))
        for field in ("name", "weight_path", "task_id", "description"):
            self.refused(self.train(**{field: 5}), "string_type", ["body", field], 5)

    # -- booleans --

    def test_booleans(self):
        for value in (True, False, 0, 1, 0.0, 1.0, "true", "FALSE", "t", "F", "yes", "No", "y", "n", "on", "OFF", "1",
                      "0"):
            with self.subTest(value=value):
                self.accepted(self.train(shuffle=value))

    def test_not_booleans(self):
        for value, kind in ((2, "bool_parsing"), (-1, "bool_parsing"), ("maybe", "bool_parsing"),
                            (" true", "bool_parsing"), ("", "bool_parsing"), (0.5, "bool_type"), (None, "bool_type"),
                            ([], "bool_type"), ({}, "bool_type")):
            with self.subTest(value=value):
                self.refused(self.train(shuffle=value), kind, ["body", "shuffle"], value)

    # -- lists and maps --

    def test_lists(self):
        for value in ("/a", 1, {}, None):
            response = self.daemon.post("/api/v2/inference/batch", dict(BATCH, source_paths=value))
            self.refused(response, "list_type", ["body", "source_paths"], value)
        response = self.daemon.post("/api/v2/inference/batch", dict(BATCH, source_paths=["/a", 5, None]))
        self.assert_faults(response, ("string_type", ("body", "source_paths", 1)),
                           ("string_type", ("body", "source_paths", 2)))

    def test_maps(self):
        for value in ([], 1, "x"):
            response = self.daemon.post("/api/v2/resources/config", {"max_concurrent": value})
            self.refused(response, "dict_type", ["body", "max_concurrent"], value)

    # -- the query --

    def test_query_integers(self):
        for text in ("abc", "", "1.5"):
            response = self.daemon.get(f"/api/v2/tasks?limit={text}")
            self.refused(response, "int_parsing", ["query", "limit"], text)
        for text in ("5", "+5", "%205", "0", "007"):
            self.assertEqual(self.daemon.get(f"/api/v2/tasks?limit={text}").status_code, 200)
        self.assertIn(self.daemon.get("/api/v2/tasks?limit=-1").status_code, (200, 422))


if __name__ == "__main__":
    unittest.main()
