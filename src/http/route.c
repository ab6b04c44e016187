/* route.c - the routes as a tree of path segments. A segment is a fixed name or a parameter; a parameter matches any
 * text without '/', but not nothing. */
#include <stdlib.h>
#include <string.h>

#include "http/internal.h"

struct node {
    const char *segment; /* in the route's path, not NUL-terminated; NULL: a parameter */
    size_t length;
    struct node *children, *next;
    const struct http_route *routes[4]; /* of this very path, one per method, in the table's order */
    size_t route_count;
};

struct route_tree {
    struct arena *arena;
    struct node *root;
};

static struct node *child(struct route_tree *tree, struct node *parent, const char *segment, size_t length)
{
    bool is_param = length && segment[0] == '{';
    struct node **link = &parent->children, *node;

    for (node = *link; node; link = &node->next, node = *link)
        if (is_param ? !node->segment
                     : node->segment && node->length == length && !memcmp(node->segment, segment, length))
            return node;
    node = arena_alloc(tree->arena, sizeof *node);
    if (!node)
        return NULL;
    node->segment = is_param ? NULL : segment;
    node->length = length;
    *link = node;
    return node;
}

static bool add(struct route_tree *tree, const struct http_route *route)
{
    const char *segment = route->path + 1;
    struct node *node = tree->root;

    for (;;) {
        size_t length = strcspn(segment, "/");

        node = child(tree, node, segment, length);
        if (!node)
            return false;
        if (!segment[length])
            break;
        segment += length + 1;
    }
    if (node->route_count == sizeof node->routes / sizeof *node->routes)
        return false;
    node->routes[node->route_count++] = route;
    return true;
}

struct route_tree *route_tree_new(const struct http_route *routes, size_t n)
{
    struct arena *arena = arena_new(0);
    struct route_tree *tree = arena ? arena_alloc(arena, sizeof *tree) : NULL;

    if (!tree) {
        arena_free(arena);
        return NULL;
    }
    tree->arena = arena;
    tree->root = arena_alloc(arena, sizeof *tree->root);
    for (size_t i = 0; tree && i < n; i++)
        if (!tree->root || !add(tree, &routes[i]))
            tree = route_tree_free(tree);
    return tree;
}

struct route_tree *route_tree_free(struct route_tree *tree)
{
    if (tree)
        arena_free(tree->arena);
    return NULL;
}

/* Where a search stands: the parameter met on the way, and the first route that had another method. */
struct search {
    const char *method;
    char *param;
    size_t param_length;
    const struct http_route *other;
};

static const struct http_route *by_method(const struct node *node, struct search *search)
{
    for (size_t i = 0; i < node->route_count; i++)
        if (!strcmp(node->routes[i]->method, search->method))
            return node->routes[i];
    if (!search->other && node->route_count)
        search->other = node->routes[0];
    return NULL;
}

static const struct http_route *descend(const struct node *parent, char *segment, struct search *search)
{
    size_t length = strcspn(segment, "/");
    const struct node *param = NULL;
    const struct http_route *route;

    for (const struct node *node = parent->children; node; node = node->next) {
        if (!node->segment) {
            param = node;
            continue;
        }
        if (node->length != length || memcmp(node->segment, segment, length) != 0)
            continue;
        route = segment[length] ? descend(node, segment + length + 1, search) : by_method(node, search);
        if (route)
            return route;
    }
    if (!param || !length)
        return NULL;
    route = segment[length] ? descend(param, segment + length + 1, search) : by_method(param, search);
    if (route) {
        search->param = segment;
        search->param_length = length;
    }
    return route;
}

const struct http_route *route_find(const struct route_tree *tree, const char *method, char *path,
                                    const char **ret_param, const struct http_route **ret_other)
{
    struct search search = {.method = method};
    const struct http_route *route = *path == '/' ? descend(tree->root, path + 1, &search) : NULL;

    *ret_param = "";
    *ret_other = route ? NULL : search.other;
    if (route && search.param) {
        search.param[search.param_length] = '\0';
        *ret_param = search.param;
    }
    return route;
}
