"""The client under the module name that published examples import: `from test_refactored_api import RFUAVClient`.

It keeps the habits that those examples rely on where rfuav_client left them behind: a training without batch_size or
num_epochs means 16 and 50 here, wait_for_task prints a line each round, and every event of a log has a level."""

from rfuav_client import RFUAVClient as _RFUAVClient
from rfuav_client import RFUAVError


class RFUAVClient(_RFUAVClient):
    def start_training(self, model, num_classes, train_path, val_path, save_path, batch_size=16, num_epochs=50,
                       learning_rate=0.0001, device="cuda", priority=5, **fields):
        return super().start_training(model, num_classes, train_path, val_path, save_path, batch_size=batch_size,
                                      num_epochs=num_epochs, learning_rate=learning_rate, device=device,
                                      priority=priority, **fields)

    def start_inference(self, cfg_path, weight_path, source_path, save_path=None, device="cuda", priority=3, **fields):
        return super().start_inference(cfg_path, weight_path, source_path, save_path, device=device,
                                       priority=priority, **fields)

    def start_batch_inference(self, cfg_path, weight_path, source_paths, save_base_path=None, device="cuda", **fields):
        return super().start_batch_inference(cfg_path, weight_path, source_paths, save_base_path, device=device,
                                             **fields)

    def stream_training_logs(self, task_id):
        for event in super().stream_training_logs(task_id):
            event.setdefault("level", "INFO")
            yield event

    def wait_for_task(self, task_id, interval=5, timeout=3600, on_update=None):
        def show(record):
            print(f"[{task_id[:8]}] 状态: {record['status']}, 进度: {record.get('progress', 0)}%")

        return super().wait_for_task(task_id, interval, timeout, on_update or show)


__all__ = ["RFUAVClient", "RFUAVError"]
