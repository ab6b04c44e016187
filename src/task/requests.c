/* requests.c - see requests.h. The rows stand in the contract's order: faults are reported in it. The upper bounds are
 * ours: past them a number is a slip of the hand, and the sizes computed from it would overflow. */
#include "task/requests.h"

#define AT_LEAST(x)   .min = (x), .flags = FIELD_HAS_MIN
#define BETWEEN(x, y) .min = (x), .max = (y), .flags = FIELD_HAS_MIN | FIELD_HAS_MAX
#define ABOVE(x)      .min = (x), .flags = FIELD_HAS_MIN | FIELD_EXCLUSIVE
#define DEVICE_DOC    "cuda (the service picks a GPU), cuda:N, or cpu"
#define TASK_ID_DOC   "id of your own choice; absent: a random UUID"
#define PRIORITY_DOC  "1 is the most urgent"
#define PRECISION_DOC "fp32, or bf16: half the memory and twice the speed on a GPU; the CPU takes fp32 for both"
#define NAME_DOC      "sub-folder appended to save_path"

static const struct field train_fields[] = {
    FIELD(train_request, model, STRING, .flags = FIELD_REQUIRED, .doc = "architecture, for example resnet18"),
    FIELD(train_request, num_classes, INT, .min = 1, .max = 100000,
          .flags = FIELD_REQUIRED | FIELD_HAS_MIN | FIELD_HAS_MAX,
          .doc = "size of the output layer; at least the number of class folders"),
    FIELD(train_request, train_path, STRING, .flags = FIELD_REQUIRED,
          .doc = "training set: a folder with one folder of images per class"),
    FIELD(train_request, val_path, STRING, .flags = FIELD_REQUIRED, .doc = "validation set, of the same form"),
    FIELD(train_request, save_path, STRING, .flags = FIELD_REQUIRED,
          .doc = "output folder, made if missing; empty: models/output"),
    FIELD(train_request, name, STRING, .flags = FIELD_NULLABLE | FIELD_RELATIVE, .doc = NAME_DOC),
    FIELD(train_request, batch_size, INT, .initial = "8", BETWEEN(1, 65536), .doc = "images per step"),
    FIELD(train_request, num_epochs, INT, .initial = "100", BETWEEN(1, 1000000), .doc = "passes over the training set"),
    FIELD(train_request, learning_rate, FLOAT, .initial = "0.0001", ABOVE(0), .doc = "step size of Adam"),
    FIELD(train_request, image_size, INT, .initial = "224", BETWEEN(32, 8192),
          .doc = "side of the square that images are resized to; vit models need 224"),
    FIELD(train_request, device, STRING, .initial = "cuda", .doc = DEVICE_DOC),
    FIELD(train_request, weight_path, STRING, .initial = "", .flags = FIELD_NULLABLE,
          .doc = "checkpoint to start from (.pth or safetensors), of the same model and num_classes; wins over "
                 "pretrained"),
    FIELD(train_request, pretrained, BOOL, .initial = "true",
          .doc = "start from ImageNet weights when their file is found on this machine"),
    FIELD(train_request, shuffle, BOOL, .initial = "true", .doc = "shuffle the training set in each epoch"),
    FIELD(train_request, task_id, STRING, .flags = FIELD_NULLABLE, .doc = TASK_ID_DOC),
    FIELD(train_request, priority, INT, .initial = "5", BETWEEN(1, 10), .doc = PRIORITY_DOC),
    FIELD(train_request, description, STRING, .flags = FIELD_NULLABLE, .doc = "a note for people"),
    FIELD(train_request, seed, INT, .initial = "-1",
          .doc = "same seed, same device: same weights bit for bit; negative: a new seed each time"),
    FIELD(train_request, keep_checkpoints, INT, .initial = "0", AT_LEAST(0),
          .doc = "newest epoch checkpoints that are kept; 0: all"),
    FIELD(train_request, precision, STRING, .initial = "fp32", .doc = PRECISION_DOC),
    FIELD(train_request, deterministic, BOOL, .initial = "false",
          .doc = "on a GPU too the seed alone decides about every bit: algorithms are not chosen by timing them"),
};

static const struct field infer_fields[] = {
    FIELD(infer_request, cfg_path, STRING, .flags = FIELD_REQUIRED,
          .doc = "YAML description of the model: model, num_classes, class_names, image_size"),
    FIELD(infer_request, weight_path, STRING, .flags = FIELD_REQUIRED, .doc = "checkpoint (.pth or safetensors)"),
    FIELD(infer_request, source_path, STRING, .flags = FIELD_REQUIRED,
          .doc = "an image, a raw IQ file, or a folder of them"),
    FIELD(infer_request, save_path, STRING, .flags = FIELD_NULLABLE,
          .doc = "output folder, made if missing; absent or empty: ./results/"),
    FIELD(infer_request, name, STRING, .flags = FIELD_NULLABLE | FIELD_RELATIVE, .doc = NAME_DOC),
    FIELD(infer_request, device, STRING, .initial = "cuda", .doc = DEVICE_DOC),
    FIELD(infer_request, task_id, STRING, .flags = FIELD_NULLABLE, .doc = TASK_ID_DOC),
    FIELD(infer_request, priority, INT, .initial = "3", BETWEEN(1, 10), .doc = PRIORITY_DOC),
    FIELD(infer_request, batch_size, INT, .initial = "0", BETWEEN(0, 65536),
          .doc = "images per step; 0: chosen by the service"),
    FIELD(infer_request, precision, STRING, .initial = "fp32", .doc = PRECISION_DOC),
};

static const struct field infer_batch_fields[] = {
    FIELD(infer_batch_request, cfg_path, STRING, .flags = FIELD_REQUIRED, .doc = "YAML description of the model"),
    FIELD(infer_batch_request, weight_path, STRING, .flags = FIELD_REQUIRED, .doc = "checkpoint (.pth or safetensors)"),
    FIELD(infer_batch_request, source_paths, STRING_LIST, .flags = FIELD_REQUIRED,
          .doc = "one inference is started for each path"),
    FIELD(infer_batch_request, save_base_path, STRING, .flags = FIELD_NULLABLE,
          .doc = "results go to save_base_path/0, /1, ..."),
    FIELD(infer_batch_request, device, STRING, .initial = "cuda", .doc = DEVICE_DOC),
    FIELD(infer_batch_request, priority, INT, .initial = "3", BETWEEN(1, 10), .doc = PRIORITY_DOC),
    FIELD(infer_batch_request, precision, STRING, .initial = "fp32", .doc = PRECISION_DOC),
};

const struct field_table train_request_table = FIELD_TABLE("TrainingRequest", train_request, train_fields);
const struct field_table infer_request_table = FIELD_TABLE("InferenceRequest", infer_request, infer_fields);
const struct field_table infer_batch_request_table =
    FIELD_TABLE("BatchInferenceRequest", infer_batch_request, infer_batch_fields);
