"""RFUAVClient: one method for each operation of the service."""

import time

from .transport import RFUAVError, Transport

ENDED = ("completed", "failed", "cancelled")


class RFUAVClient:
    """A service at one address. May be shared by threads.

    Every method returns what the service answered (a dict), and raises RFUAVError when it refused or did not answer.
    Fields that are not given are left to the service's defaults, so this class never lags behind it.
    """

    def __init__(self, base_url="http://localhost:8000", api_key=None, timeout=30.0):
        self._http = Transport(base_url, api_key, timeout)
        self.base_url = self._http.base_url

    # ---- training ----

    def start_training(self, model, num_classes, train_path, val_path, save_path, **fields):
        """Starts a training. Further fields: name, batch_size, num_epochs, learning_rate, image_size, device,
        weight_path, pretrained, shuffle, task_id, priority, description, seed, keep_checkpoints, precision."""
        return self._http.call("POST", "/api/v2/training/start", dict(
            fields, model=model, num_classes=num_classes, train_path=train_path, val_path=val_path,
            save_path=save_path))

    def get_training_status(self, task_id):
        return self._get("/api/v2/training/{}", task_id)

    def stop_training(self, task_id):
        return self._post("/api/v2/training/{}/stop", task_id)

    def stream_training_logs(self, task_id):
        """Yields every line of the log from the first, live, as dicts; the last one has the key `status`."""
        return self._stream("/api/v2/training/{}/logs", task_id)

    # ---- inference ----

    def start_inference(self, cfg_path, weight_path, source_path, save_path=None, **fields):
        """Starts an inference. Further fields: name, device, task_id, priority, batch_size, precision."""
        if save_path:
            fields["save_path"] = save_path
        return self._http.call("POST", "/api/v2/inference/start", dict(
            fields, cfg_path=cfg_path, weight_path=weight_path, source_path=source_path))

    def start_batch_inference(self, cfg_path, weight_path, source_paths, save_base_path=None, **fields):
        """Starts one inference for each source. Further fields: device, priority, precision."""
        if save_base_path:
            fields["save_base_path"] = save_base_path
        return self._http.call("POST", "/api/v2/inference/batch", dict(
            fields, cfg_path=cfg_path, weight_path=weight_path, source_paths=list(source_paths)))

    def get_inference_status(self, task_id):
        return self._get("/api/v2/inference/{}", task_id)

    # ---- tasks ----

    def get_all_tasks(self, status=None, task_type=None, limit=100):
        """The latest tasks, `limit` of each kind at most, oldest first."""
        query = {"limit": limit}
        if status:
            query["status"] = status
        if task_type:
            query["task_type"] = task_type
        return self._http.call("GET", "/api/v2/tasks", query=query)

    list_tasks = get_all_tasks

    def get_task(self, task_id):
        return self._get("/api/v2/tasks/{}", task_id)

    def cancel_task(self, task_id):
        return self._post("/api/v2/tasks/{}/cancel", task_id)

    def delete_task(self, task_id):
        return self._http.call("DELETE", self._http.path("/api/v2/tasks/{}", task_id))

    def stream_logs(self, task_id):
        """As stream_training_logs, for a task of either kind."""
        return self._stream("/api/v2/tasks/{}/logs", task_id)

    def get_logs(self, task_id):
        """The log so far, as a list."""
        return self._get("/api/v2/tasks/{}/logs", task_id)

    def wait_for_task(self, task_id, interval=1.0, timeout=3600.0, on_update=None):
        """Waits until a training or an inference has ended and returns its record; TimeoutError after `timeout`
        seconds (None: never). on_update(record) is called every `interval` seconds."""
        return self._wait(self.get_task, task_id, interval, timeout, on_update)

    # ---- preprocessing ----

    def split_dataset(self, input_path, output_path, **fields):
        """Splits a folder of classes into train, valid and test. Further fields: train_ratio, val_ratio, task_id,
        description."""
        return self._http.call("POST", "/api/v2/preprocessing/split",
                               dict(fields, input_path=input_path, output_path=output_path))

    def augment_dataset(self, dataset_path, output_path=None, methods=None, **fields):
        if output_path is not None:
            fields["output_path"] = output_path
        if methods is not None:
            fields["methods"] = list(methods)
        return self._http.call("POST", "/api/v2/preprocessing/augment", dict(fields, dataset_path=dataset_path))

    def crop_images(self, input_path, output_path, x, y, width, height, **fields):
        return self._http.call("POST", "/api/v2/preprocessing/crop", dict(
            fields, input_path=input_path, output_path=output_path, x=x, y=y, width=width, height=height))

    def get_preprocessing_status(self, task_id):
        return self._get("/api/v2/preprocessing/{}", task_id)

    def cancel_preprocessing(self, task_id):
        return self._post("/api/v2/preprocessing/{}/cancel", task_id)

    def stream_preprocessing_logs(self, task_id):
        return self._stream("/api/v2/preprocessing/{}/logs", task_id)

    def wait_for_preprocessing(self, task_id, interval=1.0, timeout=3600.0, on_update=None):
        return self._wait(self.get_preprocessing_status, task_id, interval, timeout, on_update)

    # ---- models, devices, limits ----

    def get_models(self, image_size=224, num_classes=1000, batch_size=8, precision="fp32", device=None):
        """Every model's size, cost and memory at this image size and batch size."""
        query = {"image_size": image_size, "num_classes": num_classes, "batch_size": batch_size, "precision": precision}
        if device:
            query["device"] = device
        return self._http.call("GET", "/api/v2/models", query=query)

    def get_resources(self):
        return self._get("/api/v2/resources")

    def get_gpu_info(self):
        return self._get("/api/v2/resources/gpu")

    def get_cpu_info(self):
        return self._get("/api/v2/resources/cpu")

    def update_resource_config(self, config):
        """Sets limits: {"cuda:0": {"training": 2}}, or that map under the key max_concurrent as on the wire."""
        body = config if config is None or "max_concurrent" in config else {"max_concurrent": config}
        return self._http.call("POST", "/api/v2/resources/config", body or {})

    # ---- the service ----

    def health_check(self):
        return self._get("/api/v1/health")

    def get_system_info(self):
        return self._get("/api/v1/info")

    get_info = get_system_info

    # ---- inside ----

    def _get(self, template, *ids):
        return self._http.call("GET", self._http.path(template, *ids))

    def _post(self, template, *ids):
        return self._http.call("POST", self._http.path(template, *ids))

    def _stream(self, template, task_id):
        return self._http.stream(self._http.path(template, task_id))

    @staticmethod
    def _wait(read, task_id, interval, timeout, on_update):
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            record = read(task_id)
            if on_update:
                on_update(record)
            if record["status"] in ENDED:
                return record
            left = interval if end is None else min(interval, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"task {task_id} is still {record['status']} after {timeout} s")
            time.sleep(left)


__all__ = ["RFUAVClient", "RFUAVError"]
