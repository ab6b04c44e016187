/* golden.c - the golden values of tests/golden on the CUDA backend: logits, the gradient of every parameter, ten steps
 * of Adam, in F32 without TF32 and in BF16. To be run where tests/golden is.
 *
 *   golden [MODEL...]
 *
 * The checks are test_net_golden.c's. A bare GPU server has no cmocka, whose few words that are used stand here. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define CMOCKA_H_
struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f)                                                                                            \
    {                                                                                                                  \
#f, f                                                                                                          \
    }
#define cmocka_run_group_tests(tests, setup, teardown) run_tests(tests, sizeof(tests) / sizeof *(tests))
#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        printf("FAILED " __VA_ARGS__);                                                                                 \
        printf("\n");                                                                                                  \
        exit(1);                                                                                                       \
    } while (0)
#define assert_true(x)                                                                                                 \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            fail_msg("%s:%d: %s", __FILE__, __LINE__, #x);                                                             \
    } while (0)
#define assert_non_null(x)        assert_true((x) != NULL)
#define assert_int_equal(a, b)    assert_true((a) == (b))
#define assert_string_equal(a, b) assert_true(strcmp(a, b) == 0)

static int run_tests(const struct CMUnitTest *tests, size_t count);
int golden_main(void);

#define main golden_main
#include "../golden/test_net_golden.c"
#undef main

const struct backend cpu_backend = {.name = "cpu"};

static int run_tests(const struct CMUnitTest *tests, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tests[i].run(NULL);
    return 0;
}

static char **chosen; /* models of the command line, NULL-terminated; none: all */

static bool is_chosen(const char *model)
{
    for (char **word = chosen; *word; word++)
        if (strcmp(*word, model) == 0)
            return true;
    return !*chosen;
}

static void test_logits_cuda(void **state)
{
    (void)state;
    for (const char *const *model = net_models(); *model; model++)
        if (is_chosen(*model))
            check_logits(*model, "cuda", false);
}

static void test_training_cuda(void **state)
{
    static const char *const models[] = {"resnet18", "resnet50", "vit_b_32", "swin_v2_t", "mobilenet_v3_large"};

    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (is_chosen(models[i]))
            check_training(models[i], "cuda", STEPS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_cuda),
        cmocka_unit_test(test_training_cuda),
    };

    (void)argc;
    chosen = argv + 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("RFUAV_TF32", "0", 1);
    cmocka_run_group_tests(tests, NULL, NULL);
    printf("fp32 agrees\n");
    precision = DTYPE_BF16;
    logits_limit = training_limit = 2e-2;
    worst_limit = 0.16; /* of a single parameter, a small sum of large numbers: PyTorch's autocast has 0.104 on this
                         * card, of the same bias of resnet50; half more */
    cmocka_run_group_tests(tests, NULL, NULL);
    printf("bf16 agrees\n");
    return 0;
}
