/* test_kinds.c - the table of kinds: the contract's texts byte for byte, the checks of a request with its texts, the
 * memory that is known before the start. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "task/kinds.h"
#include "task/recordings.h"
#include "task/requests.h"

static struct arena *arena;
static char folder[] = "/tmp/rfuav-kinds-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    text_set_language("zh");
    arena = arena_new(0);
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    unlink("w.pth");
    unlink("cfg.yaml");
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static void touch(const char *name, const char *content)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static struct train_request good_training(void)
{
    return (struct train_request){.model = "resnet18",
                                  .num_classes = 5,
                                  .train_path = ".",
                                  .val_path = "./",
                                  .save_path = "out",
                                  .batch_size = 8,
                                  .num_epochs = 3,
                                  .learning_rate = 1e-4,
                                  .image_size = 64,
                                  .device = "cuda",
                                  .weight_path = ""};
}

static void texts_as_in_the_contract(void **state)
{
    static const char *const training[] = {"等待开始",   "等待资源...", "训练中...",       "训练完成",
                                           "训练失败: ", "任务已取消",  "训练已被用户取消"};
    static const char *const inference[] = {"等待开始",   "等待资源...", "推理中...", "推理完成",
                                            "推理失败: ", "任务已取消",  "任务已取消"};

    (void)state;
    for (enum task_text text = 0; text < TASK_TEXTS; text++) {
        assert_string_equal(task_kind_find("training")->text(text), training[text]);
        assert_string_equal(task_kind_find("inference")->text(text), inference[text]);
    }
    text_set_language("en");
    for (enum task_text text = 0; text < TASK_TEXTS; text++)
        for (const char *c = task_kind_find("training")->text(text); *c; c++)
            assert_true((unsigned char)*c < 0x80);
}

static void rows_are_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < task_kind_count; i++) {
        const struct task_kind *kind = &task_kinds[i];

        assert_ptr_equal(task_kind_find(kind->name), kind);
        assert_true(kind->command && kind->start_path && kind->request && kind->check && kind->memory);
        assert_true(kind->total_epochs && kind->run && kind->text);
    }
    assert_null(task_kind_find("baking"));
    assert_null(task_kind_find(NULL));
}

static void members_are_found(void **state)
{
    struct train_request request = {.device = "cuda:1", .task_id = "mine", .priority = 7, .num_epochs = 12};
    const struct task_kind *kind = task_kind_find("training");
    const char *at = (const char *)&request;

    (void)state;
    assert_string_equal(*(const char *const *)(const void *)(at + kind->device_offset), "cuda:1");
    assert_string_equal(*(const char *const *)(const void *)(at + kind->task_id_offset), "mine");
    assert_int_equal(*(const int64_t *)(const void *)(at + kind->priority_offset), 7);
    assert_int_equal(kind->total_epochs(&request), 12);
    assert_int_equal(task_kind_find("inference")->total_epochs(&(struct infer_request){0}), 0);
}

static void assert_refused(const char *kind, void *request, const char *message)
{
    struct err err;

    assert_false(task_kind_find(kind)->check(request, arena, &err));
    assert_int_equal(err.kind, ERR_REQUEST);
    assert_string_equal(err.message, message);
}

static void checks_of_a_training(void **state)
{
    struct train_request request = good_training();
    struct err err;
    char expected[PATH_MAX];

    (void)state;
    request.model = "Resnet18"; /* and the model comes before the paths */
    request.train_path = "nowhere";
    assert_refused("training", &request, "不支持的模型: Resnet18");
    request.model = "resnet18";
    request.val_path = "nowhere else";
    assert_refused("training", &request, "训练集路径不存在: nowhere");
    request.train_path = ".";
    assert_refused("training", &request, "验证集路径不存在: nowhere else");
    request.val_path = "./";
    request.weight_path = "w.pth";
    assert_refused("training", &request, "权重文件不存在: w.pth");
    touch("w.pth", "");
    assert_true(task_kind_find("training")->check(&request, arena, &err));
    snprintf(expected, sizeof expected, "%s/w.pth", folder);
    assert_string_equal(request.weight_path, expected);
    snprintf(expected, sizeof expected, "%s/out", folder);
    assert_string_equal(request.save_path, expected);
}

static void default_folders(void **state)
{
    struct train_request training = good_training();
    struct infer_request inference = {.cfg_path = "cfg.yaml", .weight_path = "w.pth", .source_path = "."};
    char expected[PATH_MAX];
    struct err err;

    (void)state;
    training.save_path = "";
    assert_true(task_kind_find("training")->check(&training, arena, &err));
    snprintf(expected, sizeof expected, "%s/models/output", folder);
    assert_string_equal(training.save_path, expected);

    touch("cfg.yaml", "");
    touch("w.pth", "");
    assert_true(task_kind_find("inference")->check(&inference, arena, &err));
    snprintf(expected, sizeof expected, "%s/results", folder);
    assert_string_equal(inference.save_path, expected);
}

static void checks_of_an_inference(void **state)
{
    struct infer_request request = {.cfg_path = "cfg.yaml", .weight_path = "w.pth", .source_path = "nowhere"};

    (void)state;
    assert_refused("inference", &request, "配置文件不存在: cfg.yaml");
    touch("cfg.yaml", "");
    request.cfg_path = "cfg.yaml";
    assert_refused("inference", &request, "模型权重不存在: w.pth");
    touch("w.pth", "");
    request.cfg_path = "cfg.yaml";
    request.weight_path = "w.pth";
    assert_refused("inference", &request, "数据路径不存在: nowhere");
}

static void memory_of_a_training_on(const char *backend)
{
    const struct task_kind *kind = task_kind_find("training");
    struct train_request request = good_training();
    char advice[256] = "", other[256] = "";
    uint64_t small, large, room;
    bool beyond = false;

    small = kind->memory(&request, backend, UINT64_MAX, advice, sizeof advice);
    assert_true(small > 4 * 11179077ull * 4); /* weights, gradients, two moments */
    assert_string_equal(advice, "");
    request.batch_size = 512;
    large = kind->memory(&request, backend, UINT64_MAX, NULL, 0);
    assert_true(large > small);

    room = (small + large) / 2;
    assert_int_equal(kind->memory(&request, backend, room, advice, sizeof advice), large);
    assert_non_null(strstr(advice, "the largest batch_size that fits is "));
    request.batch_size = 65536; /* what is asked for does not change what fits */
    kind->memory(&request, backend, room, other, sizeof other);
    assert_string_equal(other, advice);
    request.batch_size = atoi(strrchr(advice, ' '));
    assert_true(request.batch_size >= 8 && request.batch_size < 512);
    assert_true(kind->memory(&request, backend, UINT64_MAX, NULL, 0) <= room);
    for (int more = 1 + request.batch_size / 64; more > 0;
         more--) { /* a GPU's margin is rounded, and algorithms change */
        request.batch_size++;
        beyond = beyond || kind->memory(&request, backend, UINT64_MAX, NULL, 0) > room;
    }
    assert_true(beyond);

    request.batch_size = 8;
    kind->memory(&request, backend, 1 << 20, advice, sizeof advice);
    assert_non_null(strstr(advice, "not even"));
}

static void memory_of_a_training(void **state)
{
    (void)state;
    text_set_language("en");
    memory_of_a_training_on("cpu");
    memory_of_a_training_on("cuda");
}

static void memory_of_an_inference(void **state)
{
    const struct task_kind *kind = task_kind_find("inference");
    struct infer_request request = {.cfg_path = "cfg.yaml", .weight_path = "w.pth", .source_path = "."};
    uint64_t bytes;

    (void)state;
    touch("cfg.yaml", "model: resnet18\nnum_classes: 3\nclass_names: [a, b, c]\nimage_size: 64\n");
    bytes = kind->memory(&request, "cpu", UINT64_MAX, NULL, 0);
    assert_true(bytes > 11178051ull * 4);
    request.source_path = "x.iq"; /* turning recordings into pictures takes memory of its own */
    touch("x.iq", "");
    assert_int_equal(kind->memory(&request, "cpu", UINT64_MAX, NULL, 0), bytes + recordings_memory(0));
    unlink("x.iq");
    touch("cfg.yaml", "- nothing of the kind\n");
    assert_int_equal(kind->memory(&request, "cpu", UINT64_MAX, NULL, 0), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(texts_as_in_the_contract), TEST(rows_are_complete),      TEST(members_are_found),
        TEST(checks_of_a_training),     TEST(default_folders),        TEST(checks_of_an_inference),
        TEST(memory_of_a_training),     TEST(memory_of_an_inference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
