/* cpu.h - the CPU backend: the rows of `ref` with those replaced that oneDNN does better. */
#ifndef RFUAV_ENGINE_CPU_CPU_H
#define RFUAV_ENGINE_CPU_CPU_H

#include "engine/backend.h"

extern const struct backend cpu_backend;

#endif
