/* settings.c - see settings.h */
#include "server/settings.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "base/version.h"

#define MODELS                                                                                                         \
    "[\"resnet18\",\"resnet34\",\"resnet50\",\"resnet101\",\"resnet152\",\"vit_b_16\",\"vit_b_32\",\"vit_l_16\","      \
    "\"vit_l_32\",\"swin_v2_t\",\"swin_v2_s\",\"swin_v2_b\",\"mobilenet_v3_large\",\"mobilenet_v3_small\"]"
#define BETWEEN(x, y)  .min = (x), .max = (y), .flags = FIELD_HAS_MIN | FIELD_HAS_MAX
#define COUNT(n, what) .initial = (n), .min = 0, .max = 1e6, .flags = FIELD_HAS_MIN | FIELD_HAS_MAX, .doc = (what)

static const struct field rows[] = {
    FIELD(settings, app_name, STRING, .initial = "RFUAV Model Service", .doc = "name that the service shows"),
    FIELD(settings, version, STRING, .initial = RFUAV_VERSION, .doc = "version that the service shows"),
    FIELD(settings, description, STRING, .initial = "", .doc = "one line for the API description"),
    FIELD(settings, environment, STRING, .initial = "development", .doc = "shown in /api/v1/info"),
    FIELD(settings, host, STRING, .initial = "127.0.0.1", .doc = "address to listen on"),
    FIELD(settings, port, INT, .initial = "8000", BETWEEN(0, 65535), .doc = "port to listen on; 0: a free one"),
    FIELD(settings, debug, BOOL, .initial = "false", .doc = "the same as --log-level DEBUG"),
    FIELD(settings, cors_origins, STRING_LIST, .initial = "[\"*\"]", .doc = "web pages that may call, *: all"),
    FIELD(settings, max_training_concurrent_gpu, INT, COUNT("1", "trainings at a time on each GPU")),
    FIELD(settings, max_inference_concurrent_gpu, INT, COUNT("3", "inferences at a time on each GPU")),
    FIELD(settings, max_training_concurrent_cpu, INT, COUNT("2", "trainings at a time on the CPU")),
    FIELD(settings, max_inference_concurrent_cpu, INT, COUNT("4", "inferences at a time on the CPU")),
    FIELD(settings, default_train_priority, INT, .initial = "5", BETWEEN(1, 10), .doc = "of trainings without one"),
    FIELD(settings, default_inference_priority, INT, .initial = "3", BETWEEN(1, 10),
          .doc = "of inferences without one"),
    FIELD(settings, task_queue_size, INT, COUNT("100", "tasks that may wait at a time")),
    FIELD(settings, log_level, STRING, .initial = "INFO", .doc = "DEBUG, INFO, WARNING or ERROR"),
    FIELD(settings, log_file, STRING, .initial = "", .doc = "the service's own log; empty: standard error"),
    FIELD(settings, supported_models, STRING_LIST, .initial = MODELS, .doc = "models that may be trained"),
    FIELD(settings, enable_gpu_selection, BOOL, .initial = "true", .doc = "off: \"cuda\" means cuda:0"),
    FIELD(settings, data_dir, STRING, .initial = "", .doc = "folder of the database; empty: ~/.local/state/rfuav"),
    FIELD(settings, devices, STRING, .initial = "", .doc = "JSON file of devices to pretend, for tests"),
    FIELD(settings, api_key, STRING, .initial = "", .flags = FIELD_SECRET, .doc = "key that requests must carry"),
    FIELD(settings, allow_unauthenticated, BOOL, .initial = "false", .doc = "listen beyond loopback without a key"),
    FIELD(settings, data_roots, STRING_LIST, .initial = "[]", .doc = "folders that requests may name; empty: all"),
    FIELD(settings, weights_dir, STRING, .initial = "", .doc = "folder of pretrained weights"),
    FIELD(settings, cpu_threads, INT, COUNT("0", "processor threads of a task; 0: all")),
    FIELD(settings, keep_checkpoints, INT, COUNT("0", "epoch checkpoints a training keeps; 0: all")),
    FIELD(settings, cache_mb, INT, .initial = "0", BETWEEN(0, 1e9),
          .doc = "memory for decoded images of a task, MB; 0: a quarter of what is free"),
    FIELD(settings, rfuav_lang, STRING, .initial = "", .doc = "zh or en; empty: by the locale"),
};

const struct field_table settings_table = FIELD_TABLE("Settings", settings, rows);

/* The field as its variable: "port" is PORT. */
struct variable {
    char name[64];
    struct field field;
};

static void variable_of(const struct field *field, struct variable *ret)
{
    size_t i = 0;

    for (; i < sizeof ret->name - 1 && field->name[i]; i++)
        ret->name[i] = (char)toupper((unsigned char)field->name[i]);
    ret->name[i] = '\0';
    ret->field = *field;
    ret->field.name = ret->name;
}

static bool read_environment(struct settings *settings, struct arena *arena, struct err *err)
{
    for (size_t i = 0; i < settings_table.count; i++) {
        struct variable variable;
        const char *value;

        variable_of(&rows[i], &variable);
        value = getenv(variable.name);
        if (value && !fields_set_text(&variable.field, value, settings, arena, err))
            return false;
    }
    return true;
}

/* Cuts blanks off both ends of [text, end), in place. */
static char *trim(char *text, char *end)
{
    while (text < end && isspace((unsigned char)*text))
        text++;
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return text;
}

/* The value of a line of .env, in place: in double or single quotes as it is, else up to " #". NULL: a quote is not
 * closed. */
static char *env_value(char *text)
{
    char *value = trim(text, text + strlen(text)), *end;

    if (*value == '"' || *value == '\'') {
        end = strchr(value + 1, *value);
        if (!end)
            return NULL;
        *end = '\0';
        return value + 1;
    }
    for (end = value; *end; end++)
        if (*end == '#' && (end == value || isspace((unsigned char)end[-1])))
            break;
    return trim(value, end);
}

/* One line of .env: `NAME=value`, `export NAME=value`, a comment or nothing. */
static bool env_line(char *line, int number, struct settings *settings, struct arena *arena,
                     void (*warn)(const char *text), struct err *err)
{
    char *name = trim(line, line + strlen(line)), *equals, *value, text[256];

    if (!*name || *name == '#')
        return true;
    if (!strncmp(name, "export ", 7))
        name += 7;
    equals = strchr(name, '=');
    if (!equals)
        return err_set(err, ERR_INVALID, tr(".env 第 %d 行: 应为 NAME=value", ".env, line %d: must be NAME=value"),
                       number);
    value = env_value(equals + 1);
    if (!value)
        return err_set(err, ERR_INVALID, tr(".env 第 %d 行: 引号未闭合", ".env, line %d: the quote is not closed"),
                       number);
    name = trim(name, equals);
    for (size_t i = 0; i < settings_table.count; i++) {
        struct variable variable;

        variable_of(&rows[i], &variable);
        if (!strcmp(variable.name, name))
            return fields_set_text(&variable.field, value, settings, arena, err) ||
                   err_prefix(err, tr(".env 第 %d 行", ".env, line %d"), number);
    }
    snprintf(text, sizeof text,
             tr(".env 第 %d 行: 未知的设置 %.100s, 已忽略", ".env, line %d: no setting %.100s, ignored"), number, name);
    warn(text);
    return true;
}

static bool read_env_file(struct settings *settings, struct arena *arena, void (*warn)(const char *text),
                          struct err *err)
{
    FILE *file = fopen(".env", "re");
    char *line = NULL;
    size_t size = 0;
    int number = 0;
    bool ok = true;

    if (!file && errno == ENOENT)
        return true;
    if (!file)
        return err_set(err, ERR_IO, tr("无法读取 .env: %s", "cannot read .env: %s"), strerror(errno));
    while (ok && getline(&line, &size, file) >= 0)
        ok = env_line(line, ++number, settings, arena, warn, err);
    if (ok && ferror(file))
        ok = err_set(err, ERR_IO, tr("无法读取 .env: %s", "cannot read .env: %s"), strerror(errno));
    free(line);
    fclose(file);
    return ok;
}

static const char *absolute(struct arena *arena, const char *path)
{
    char folder[PATH_MAX];

    if (*path == '/' || !getcwd(folder, sizeof folder))
        return path;
    return arena_printf(arena, "%s/%s", folder, path);
}

static bool find_data_dir(struct settings *settings, struct arena *arena, struct err *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (*settings->data_dir)
        settings->data_dir = absolute(arena, settings->data_dir);
    else if (state && *state == '/')
        settings->data_dir = arena_printf(arena, "%s/rfuav", state);
    else if (home && *home)
        settings->data_dir = arena_printf(arena, "%s/.local/state/rfuav", home);
    else
        return err_set(err, ERR_INVALID,
                       tr("没有 HOME，请用 --data-dir 指定数据库文件夹",
                          "there is no HOME: name the database's folder with --data-dir"));
    return settings->data_dir || err_set(err, ERR_MEMORY, "no memory");
}

static bool find_data_roots(struct settings *settings, struct arena *arena, struct err *err)
{
    const char **roots = arena_alloc(arena, (settings->data_roots.count + 1) * sizeof *roots);

    for (size_t i = 0; roots && i < settings->data_roots.count; i++) {
        char real[PATH_MAX];

        if (!realpath(settings->data_roots.items[i], real))
            return err_set(err, ERR_INVALID, "DATA_ROOTS: %s: %s", settings->data_roots.items[i], strerror(errno));
        roots[i] = arena_strdup(arena, real);
        if (!roots[i])
            roots = NULL;
    }
    if (!roots)
        return err_set(err, ERR_MEMORY, "no memory");
    settings->data_roots.items = roots;
    return true;
}

bool settings_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (!strcasecmp(host, "localhost"))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool finish(struct settings *settings, struct arena *arena, struct err *err)
{
    static const char *const levels[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
    size_t level = 0;

    while (level < sizeof levels / sizeof *levels && strcasecmp(levels[level], settings->log_level) != 0)
        level++;
    if (level == sizeof levels / sizeof *levels)
        return err_set(err, ERR_INVALID,
                       tr("LOG_LEVEL 必须是 DEBUG、INFO、WARNING 或 ERROR，而不是 \"%.50s\"",
                          "LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not \"%.50s\""),
                       settings->log_level);
    settings->log_level = settings->debug ? "DEBUG" : levels[level];
    if (*settings->rfuav_lang && strcmp(settings->rfuav_lang, "zh") != 0 && strcmp(settings->rfuav_lang, "en") != 0)
        return err_set(err, ERR_INVALID,
                       tr("RFUAV_LANG 必须是 zh 或 en，而不是 \"%.50s\"", "RFUAV_LANG must be zh or en, not \"%.50s\""),
                       settings->rfuav_lang);
    if (*settings->rfuav_lang)
        text_set_language(settings->rfuav_lang);
    if (!*settings->description)
        settings->description =
            tr("无线电频谱图分类模型的训练与推理服务", "Trains and runs classifiers of radio spectrograms");
    if (!*settings->host)
        return err_set(err, ERR_INVALID, tr("HOST 不能为空", "HOST must not be empty"));
    if (!*settings->api_key && !settings->allow_unauthenticated && !settings_is_loopback(settings->host))
        return err_set(err, ERR_INVALID,
                       tr("监听 %s 会让其他机器访问本服务: 请设置 API_KEY，或加上 --allow-unauthenticated",
                          "listening on %s lets other machines in: set API_KEY, or add --allow-unauthenticated"),
                       settings->host);
    return find_data_dir(settings, arena, err) && find_data_roots(settings, arena, err);
}

bool settings_load(int argc, char **argv, struct settings *ret, struct arena *arena, void (*warn)(const char *text),
                   struct err *err)
{
    struct settings settings;

    if (!fields_defaults(&settings_table, &settings, arena))
        return err_set(err, ERR_MEMORY, "no memory");
    if (!read_env_file(&settings, arena, warn, err) || !read_environment(&settings, arena, err) ||
        !fields_args(&settings_table, &argc, argv, &settings, arena, err))
        return false;
    if (argc > 1)
        return err_set(err, ERR_INVALID, tr("%s 没有选项 %s", "%s has no option %s"), argv[0], argv[1]);
    if (!finish(&settings, arena, err))
        return false;
    *ret = settings;
    return true;
}

/* The real path of `path`, whose last parts may not exist yet. A ".." in such parts is refused: where it leads is not
 * known before they exist. */
static bool resolve(const char *path, char real[PATH_MAX])
{
    char head[PATH_MAX], tail[PATH_MAX] = "";
    struct stat link;

    if (snprintf(head, sizeof head, "%s", path) >= (int)sizeof head)
        return false;
    while (!realpath(*head ? head : "/", real)) {
        char *slash = strrchr(head, '/'), *name = slash ? slash + 1 : head, rest[PATH_MAX];

        if ((errno != ENOENT && errno != ENOTDIR) || !strcmp(name, "..") || lstat(head, &link) == 0)
            return false; /* the last: a link that leads nowhere yet */
        if (snprintf(rest, sizeof rest, "%s%s%s", name, *tail ? "/" : "", tail) >= (int)sizeof rest)
            return false;
        memcpy(tail, rest, sizeof tail);
        if (slash)
            *slash = '\0';
        else
            memcpy(head, ".", 2);
    }
    if (*tail) {
        size_t length = strcmp(real, "/") ? strlen(real) : 0;

        if ((size_t)snprintf(real + length, PATH_MAX - length, "/%s", tail) >= PATH_MAX - length)
            return false;
    }
    return true;
}

bool settings_allow_path(const struct settings *settings, const char *path)
{
    char real[PATH_MAX];

    if (!settings->data_roots.count)
        return true;
    if (!resolve(path, real))
        return false;
    for (size_t i = 0; i < settings->data_roots.count; i++) {
        const char *root = settings->data_roots.items[i];
        size_t length = strcmp(root, "/") ? strlen(root) : 0;

        if (!strncmp(real, root, length) && (real[length] == '/' || real[length] == '\0'))
            return true;
    }
    return false;
}
