"""The English counterpart of the contract's texts (decision 10 of section 0): no Chinese is left anywhere."""

import re
import unittest

from tests.api.harness import DaemonCase, scratch


class English(DaemonCase):
    OPTIONS = {"lang": "en"}

    def assert_english(self, text):
        self.assertFalse(re.search(r"[\u4e00-\u9fff]", str(text)), text)

    def test_tasks(self):
        for task in (self.daemon.train(), self.daemon.infer()):
            self.assertEqual(self.daemon.wait(task, "completed")["status"], "completed")
            self.assert_english(self.daemon.task(task))
            self.assert_english(self.daemon.get(f"/api/v2/tasks/{task}/logs").text)

    def test_waiting_failing_cancelling(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        task = self.daemon.train()
        self.assert_english(self.daemon.wait(task, "queued"))
        self.assert_english(self.daemon.cancel(task).text)
        self.assert_english(self.daemon.lines(task))
        self.assert_english(self.daemon.post("/api/v2/resources/config",
                                             {"max_concurrent": {"cpu": {"training": 2}}}).text)
        task = self.daemon.train(train_path=scratch("empty"))
        self.assert_english(self.daemon.wait(task, "failed"))
        self.assert_english(self.daemon.request("DELETE", f"/api/v2/tasks/{task}").text)

    def test_refusals(self):
        for body in ({"model": "x"}, {"train_path": "/no"}, {"val_path": "/no"}, {"weight_path": "/no"},
                     {"device": "cuda:5"}, {"device": "gpu"}, {"name": "../x"}):
            response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(**body))
            self.assertGreaterEqual(response.status_code, 400)
            self.assert_english(response.text)
        for path in ("/api/v2/tasks/x", "/api/v2/training/x", "/api/v2/tasks/x/logs", "/", "/openapi.json"):
            self.assert_english(self.daemon.get(path).text)
        self.assert_english(self.daemon.cancel("x").text)

    def test_own_output(self):
        self.assert_english(self.daemon.log())


if __name__ == "__main__":
    unittest.main()
