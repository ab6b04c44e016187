/* options.c - see options.h */
#include "cli/options.h"

#include <string.h>

#include "base/text.h"

static void take(int *argc, char **argv, int i, int n)
{
    memmove(argv + i, argv + i + n, (size_t)(*argc - i - n) * sizeof *argv);
    *argc -= n;
}

bool option_flag(int *argc, char **argv, const char *name)
{
    bool found = false;

    for (int i = 1; i < *argc;) {
        if (strcmp(argv[i], name) == 0) {
            take(argc, argv, i, 1);
            found = true;
        } else {
            i++;
        }
    }
    return found;
}

bool option_value(int *argc, char **argv, const char *name, const char **value, struct err *err)
{
    size_t length = strlen(name);

    for (int i = 1; i < *argc;) {
        if (strcmp(argv[i], name) == 0) {
            if (i + 1 >= *argc)
                return err_set(err, ERR_INVALID, tr("%s 后面缺少值", "%s needs a value"), name);
            *value = argv[i + 1];
            take(argc, argv, i, 2);
        } else if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=') {
            *value = argv[i] + length + 1;
            take(argc, argv, i, 1);
        } else {
            i++;
        }
    }
    return true;
}

bool option_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

bool options_end(int argc, char **argv, int min, int max, const char *what, struct err *err)
{
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-' && argv[i][1])
            return err_set(err, ERR_INVALID,
                           tr("没有选项 %s (rfuav %s --help 显示全部)", "no option %s (rfuav %s --help shows all)"),
                           argv[i], argv[0]);
    if (argc - 1 < min)
        return err_set(err, ERR_INVALID, tr("缺少 %s", "%s is missing"), what);
    if (argc - 1 > max)
        return err_set(err, ERR_INVALID, tr("多余的参数 \"%s\"", "\"%s\" is one word too many"), argv[1 + max]);
    return true;
}
