/* test_settings.c - where settings come from and which wins, what is refused, and which paths the data roots allow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "base/version.h"
#include "server/settings.h"

static char folder[] = "/tmp/rfuav-settings-XXXXXX", warning[256];
static struct arena *arena;
static struct settings settings;
static struct err err;

static int set_up_group(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) < 0;
}

static int tear_down_group(void **state)
{
    char command[100];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static int set_up(void **state)
{
    (void)state;
    clearenv();
    setenv("HOME", "/home/nobody", 1);
    unlink(".env");
    text_set_language("en");
    warning[0] = '\0';
    arena = arena_new(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena = arena_free(arena);
    return 0;
}

static void remember(const char *text)
{
    snprintf(warning, sizeof warning, "%s", text);
}

/* Loads with up to two options. */
static bool load(const char *a, const char *b)
{
    char *argv[] = {"serve", (char *)a, (char *)b, NULL};

    memset(&settings, 0, sizeof settings);
    return settings_load(a ? b ? 3 : 2 : 1, argv, &settings, arena, remember, &err);
}

static void env_file(const char *text)
{
    FILE *file = fopen(".env", "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_error(bool ok, const char *message)
{
    assert_false(ok);
    if (strcmp(err.message, message))
        fail_msg("%s", err.message);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_true(load(NULL, NULL));
    assert_string_equal(settings.version, RFUAV_VERSION);
    assert_string_equal(settings.host, "127.0.0.1");
    assert_int_equal(settings.port, 8000);
    assert_int_equal(settings.supported_models.count, 14);
    assert_string_equal(settings.supported_models.items[13], "mobilenet_v3_small");
    assert_string_equal(settings.cors_origins.items[0], "*");
    assert_string_equal(settings.data_dir, "/home/nobody/.local/state/rfuav");
    setenv("XDG_STATE_HOME", "/var/state", 1);
    assert_true(load(NULL, NULL));
    assert_string_equal(settings.data_dir, "/var/state/rfuav");
}

/* .env < environment < options */
static void test_order(void **state)
{
    (void)state;
    env_file("PORT=1\n# a comment\n\nexport ENVIRONMENT = \"lab # 1\"\nAPP_NAME='x'  \nDESCRIPTION=one # two\r\n"
             "TASK_QUEUE_SIZE=1_000\nSUPPORTED_MODELS=resnet18, resnet50\nNO_SUCH=1\n");
    assert_true(load(NULL, NULL));
    assert_int_equal(settings.port, 1);
    assert_string_equal(settings.environment, "lab # 1");
    assert_string_equal(settings.app_name, "x");
    assert_string_equal(settings.description, "one");
    assert_int_equal(settings.task_queue_size, 1000);
    assert_int_equal(settings.supported_models.count, 2);
    assert_string_equal(settings.supported_models.items[1], "resnet50");
    assert_string_equal(warning, ".env, line 9: no setting NO_SUCH, ignored");
    setenv("PORT", "2", 1);
    setenv("SUPPORTED_MODELS", "[\"vit_b_16\"]", 1);
    assert_true(load(NULL, NULL));
    assert_int_equal(settings.port, 2);
    assert_string_equal(settings.supported_models.items[0], "vit_b_16");
    assert_true(load("--port", "3"));
    assert_int_equal(settings.port, 3);
}

static void test_errors(void **state)
{
    (void)state;
    setenv("PORT", "http", 1);
    expect_error(load(NULL, NULL), "PORT must be a whole number, not \"http\"");
    setenv("PORT", "70000", 1);
    expect_error(load(NULL, NULL), "PORT must be at most 65535, not \"70000\"");
    unsetenv("PORT");
    expect_error(load("--port", "-1"), "--port must be at least 0, not \"-1\"");
    expect_error(load("--prot", "1"), "serve has no option --prot");
    expect_error(load("--log-level", "loud"), "LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not \"loud\"");
    env_file("DEBUG=perhaps\n");
    expect_error(load(NULL, NULL), ".env, line 1: DEBUG must be true or false, not \"perhaps\"");
    env_file("\nDEBUG\n");
    expect_error(load(NULL, NULL), ".env, line 2: must be NAME=value");
    env_file("APP_NAME=\"x\n");
    expect_error(load(NULL, NULL), ".env, line 1: the quote is not closed");
    env_file("");
    unsetenv("HOME");
    assert_false(load(NULL, NULL));
    assert_non_null(strstr(err.message, "--data-dir"));
}

static void test_key_is_not_shown(void **state)
{
    json_t *shown;

    (void)state;
    setenv("API_KEY", "topsecret", 1);
    assert_true(load(NULL, NULL));
    assert_string_equal(settings.api_key, "topsecret");
    shown = fields_write(&settings_table, &settings);
    assert_string_equal(json_string_value(json_object_get(shown, "api_key")), "***");
    json_decref(shown);
}

static void test_beyond_loopback(void **state)
{
    static const char *const inside[] = {"127.0.0.1", "127.1.2.3", "::1", "localhost"};
    static const char *const outside[] = {"0.0.0.0", "192.168.1.5", "::", "lab.example"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_true(load("--host", inside[i]));
        assert_false(load("--host", outside[i]));
        assert_non_null(strstr(err.message, "set API_KEY, or add --allow-unauthenticated"));
    }
    setenv("HOST", "0.0.0.0", 1);
    assert_true(load("--allow-unauthenticated", NULL));
    assert_true(load("--api-key", "x"));
    expect_error(load("--host", ""), "HOST must not be empty");
}

static void test_data_roots(void **state)
{
    char root[64], path[160];

    (void)state;
    assert_true(load(NULL, NULL));
    assert_true(settings_allow_path(&settings, "/etc/passwd")); /* no roots: everything */
    mkdir("data", 0755);
    mkdir("data/set", 0755);
    mkdir("database", 0755);
    symlink("/etc", "data/out");
    symlink("/nowhere/yet", "data/dangling");
    symlink("set", "data/in");
    assert_true(load("--data-roots", "data"));
    snprintf(root, sizeof root, "%s/data", folder);
    assert_string_equal(settings.data_roots.items[0], root);

    assert_true(settings_allow_path(&settings, "data"));
    assert_true(settings_allow_path(&settings, root));
    assert_true(settings_allow_path(&settings, "data/set/new/folder"));
    assert_true(settings_allow_path(&settings, "data/in/new"));
    assert_true(settings_allow_path(&settings, "database/../data/set"));
    assert_false(settings_allow_path(&settings, "database"));
    assert_false(settings_allow_path(&settings, "data/.."));
    assert_false(settings_allow_path(&settings, "data/../database"));
    assert_false(settings_allow_path(&settings, "data/new/../../database"));
    assert_false(settings_allow_path(&settings, "data/out/passwd"));
    assert_false(settings_allow_path(&settings, "data/dangling"));
    assert_false(settings_allow_path(&settings, "data/dangling/x"));
    assert_false(settings_allow_path(&settings, "/"));
    assert_false(settings_allow_path(&settings, "/nonexistent"));
    snprintf(path, sizeof path, "%s/../..%s", root, "/etc");
    assert_false(settings_allow_path(&settings, path));
    expect_error(load("--data-roots", "/no/such"), "DATA_ROOTS: /no/such: No such file or directory");
    assert_true(load("--data-roots", "/"));
    assert_true(settings_allow_path(&settings, "/nonexistent/x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_key_is_not_shown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_beyond_loopback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_data_roots, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
