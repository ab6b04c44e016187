/* test_model_cfg.c - model configurations in memory; the many variations are in tests/formats, against PyYAML. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/model_cfg.h"

static const char sample[] = "model : resnet50   # 模型\r\n"
                             "num_classes: 3\r\n"
                             "class_names: {Mavic 3: 2, \"DJI: FPV\": 0, 中文: 1,}\r\n"
                             "image_size: (640, 640)\r\n"
                             "lr: 1.0e-05\r\n"
                             "weights: None\r\n"
                             "train: E:\\data\\train\r\n"
                             "shuffle: True";

static void check_sample(const struct model_cfg *cfg)
{
    assert_string_equal(cfg->model, "resnet50");
    assert_int_equal(cfg->num_classes, 3);
    assert_string_equal(cfg->class_names[0], "DJI: FPV");
    assert_string_equal(cfg->class_names[1], "中文");
    assert_string_equal(cfg->class_names[2], "Mavic 3");
    assert_int_equal(cfg->image_size, 640);
    assert_true(cfg->lr == 1e-5);
    assert_null(cfg->weights);
    assert_string_equal(cfg->train, "E:\\data\\train");
    assert_int_equal(cfg->shuffle, 1);
    assert_int_equal(cfg->batch_size, 0);
}

static void a_file_is_read_and_printed_again(void **state)
{
    struct model_cfg *cfg = NULL;
    struct err err = {0};
    struct buf text;

    (void)state;
    assert_true(model_cfg_parse(sample, sizeof sample - 1, &cfg, &err));
    check_sample(cfg);
    buf_init(&text, 1 << 20);
    assert_true(model_cfg_print(cfg, &text, &err));
    assert_null(model_cfg_free(cfg));
    assert_string_equal(text.data, "model: 'resnet50'\n"
                                   "num_classes: 3\n"
                                   "class_names:\n"
                                   "  'DJI: FPV': 0\n"
                                   "  '中文': 1\n"
                                   "  'Mavic 3': 2\n"
                                   "image_size: 640\n"
                                   "shuffle: true\n"
                                   "lr: 1.0e-05\n"
                                   "train: 'E:\\data\\train'\n");
    assert_true(model_cfg_parse(text.data, text.size, &cfg, &err));
    check_sample(cfg);
    model_cfg_free(cfg);
    buf_release(&text);
    assert_null(model_cfg_free(NULL));
}

static void every_truncation_is_survived(void **state)
{
    struct err err = {0};

    (void)state;
    for (size_t cut = 0; cut < sizeof sample; cut++) {
        struct model_cfg *cfg = NULL;
        char *copy = malloc(cut ? cut : 1);

        memcpy(copy, sample, cut);
        if (model_cfg_parse(copy, cut, &cfg, &err))
            assert_int_equal(cfg->num_classes, 3);
        else
            assert_null(cfg);
        model_cfg_free(cfg);
        free(copy);
    }
}

static void names_that_cannot_be_written_are_refused(void **state)
{
    const char *const equal[] = {"a", "b", "a"}, *const broken[] = {"a", "\xff", "c"}, *const empty[] = {"a", "", "c"};
    struct model_cfg cfg = {.model = "resnet18", .num_classes = 3};
    struct err err = {0};
    struct buf text;

    (void)state;
    buf_init(&text, 1 << 20);
    cfg.class_names = equal;
    assert_false(model_cfg_print(&cfg, &text, &err));
    assert_string_equal(err.message, "two classes have the name \"a\"");
    cfg.class_names = broken;
    assert_false(model_cfg_print(&cfg, &text, &err));
    cfg.class_names = empty;
    assert_false(model_cfg_print(&cfg, &text, &err));
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_and_printed_again),
        cmocka_unit_test(every_truncation_is_survived),
        cmocka_unit_test(names_that_cannot_be_written_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
