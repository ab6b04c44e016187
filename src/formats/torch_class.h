/* torch_class.h - the few Python names that a checkpoint may mention, and what they mean. Nothing else exists for the
 * pickle reader. */
#ifndef RFUAV_FORMATS_TORCH_CLASS_H
#define RFUAV_FORMATS_TORCH_CLASS_H

#include "formats/pickle.h"

/* The row of a name such as "torch._utils", "_rebuild_tensor_v2"; NULL: not allowed. */
const struct torch_class *torch_class_find(const char *module, const char *name);

/* What calling it with these arguments gives, NULL with *err set. */
struct pickle_value *torch_class_call(const struct torch_class *class, const struct pickle_value *args,
                                      struct arena *arena, struct err *err);

/* The storage behind a persistent id: ("storage", class, key, location, number of elements). */
struct pickle_value *torch_storage(const struct pickle_value *id, struct arena *arena, struct err *err);

#endif
