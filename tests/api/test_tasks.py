"""Section 6 of the contract: both kinds of tasks together."""

import unittest

from tests.api.harness import DaemonCase


class List(DaemonCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.trainings = [cls.daemon.train() for _ in range(3)]
        cls.inferences = [cls.daemon.infer() for _ in range(2)]
        for task in cls.trainings + cls.inferences:
            cls.daemon.wait(task, "completed")
        cls.cancelled = cls.daemon.train_long()
        cls.daemon.cancel(cls.cancelled)
        cls.daemon.wait_all_over()
        cls.trainings.append(cls.cancelled)

    def list(self, query=""):
        answer = self.daemon.json("/api/v2/tasks" + query)
        self.assertEqual(list(answer)[:4], ["training_tasks", "inference_tasks", "total_training", "total_inference"])
        return ([task["task_id"] for task in answer["training_tasks"]],
                [task["task_id"] for task in answer["inference_tasks"]], answer["total_training"],
                answer["total_inference"])

    def test_all(self):
        self.assertEqual(self.list(), (self.trainings, self.inferences, 4, 2))

    def test_records_are_whole(self):
        for task in self.daemon.json("/api/v2/tasks")["training_tasks"]:
            self.assertEqual(task, self.daemon.task(task["task_id"]))

    def test_status(self):
        self.assertEqual(self.list("?status=completed"), (self.trainings[:3], self.inferences, 3, 2))
        self.assertEqual(self.list("?status=cancelled"), ([self.cancelled], [], 1, 0))
        self.assertEqual(self.list("?status=nonsense"), ([], [], 0, 0))
        self.assertEqual(self.list("?status="), (self.trainings, self.inferences, 4, 2))

    def test_type(self):
        self.assertEqual(self.list("?task_type=training")[:2], (self.trainings, []))
        self.assertEqual(self.list("?task_type=inference")[:2], ([], self.inferences))
        self.assertEqual(self.list("?task_type=other")[:2], (self.trainings, self.inferences))

    def test_limit_keeps_the_newest(self):
        self.assertEqual(self.list("?limit=2"), (self.trainings[-2:], self.inferences, 4, 2))
        self.assertEqual(self.list("?limit=0"), ([], [], 4, 2))
        self.assertEqual(self.list("?limit=1&status=completed&task_type=training")[:3], ([self.trainings[2]], [], 3))

    def test_either_kind_by_id(self):
        for task in (self.trainings[0], self.inferences[0]):
            self.assertEqual(self.daemon.task(task)["task_id"], task)
            self.assertEqual(self.daemon.stream(f"/api/v2/tasks/{task}/logs").status, 200)

    def test_unknown(self):
        self.assert_detail(self.daemon.get("/api/v2/tasks/none"), 404, "任务 none 不存在")
        self.assert_detail(self.daemon.get("/api/v2/tasks/none/logs"), 404, "任务 none 不存在")
        self.assert_detail(self.daemon.post("/api/v2/tasks/none/cancel"), 404, "任务 none 不存在或无法取消")
        self.assert_detail(self.daemon.request("DELETE", "/api/v2/tasks/none"), 404, "任务 none 不存在或无法删除")

    def test_ended_tasks_cannot_be_cancelled(self):
        for task in (self.trainings[0], self.inferences[0], self.cancelled):
            self.assert_detail(self.daemon.cancel(task), 404, f"任务 {task} 不存在或无法取消")


class Change(DaemonCase):
    def test_cancel(self):
        for start in (self.daemon.train_long, self.daemon.infer_long):
            task = start()
            self.daemon.wait(task, "running")
            response = self.daemon.cancel(task)
            self.assertEqual((response.status_code, response.json()),
                             (200, {"status": "success", "message": "任务已取消", "task_id": task}))
            self.assertEqual(self.daemon.task(task)["status"], "cancelled")
            self.daemon.until(lambda: not self.daemon.workers(), 2, "the end of the worker")

    def test_delete(self):
        task = self.daemon.infer()
        self.daemon.wait(task, "completed")
        response = self.daemon.request("DELETE", f"/api/v2/tasks/{task}")
        self.assertEqual((response.status_code, response.json()),
                         (200, {"status": "success", "message": "任务记录已删除", "task_id": task}))
        self.assert_detail(self.daemon.get(f"/api/v2/tasks/{task}"), 404, f"任务 {task} 不存在")
        self.assert_detail(self.daemon.request("DELETE", f"/api/v2/tasks/{task}"), 404, f"任务 {task} 不存在或无法删除")
        self.assertNotIn(task, self.daemon.get("/api/v2/tasks").text)

    def test_delete_needs_an_end(self):
        tasks = [self.daemon.train_long(priority=10) for _ in range(3)]  # the third waits
        self.daemon.wait(tasks[0], "running")
        for task in tasks:
            self.assert_detail(self.daemon.request("DELETE", f"/api/v2/tasks/{task}"), 404, f"任务 {task} 不存在或无法删除")
        self.daemon.cancel_all()

    def test_id_can_be_used_again_after_a_deletion(self):
        for _ in range(2):
            self.assertEqual(self.daemon.infer(task_id="again"), "again")
            record = self.daemon.wait("again", "completed")
            self.assertEqual(len([m for m in self.daemon.messages("again") if m == "推理完成！"]), 1)
            self.daemon.request("DELETE", "/api/v2/tasks/again")
        self.assertEqual(record["message"], "推理完成")


if __name__ == "__main__":
    unittest.main()
