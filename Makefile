# One non-recursive Makefile. `make` builds build/rfuav, `make run` shows the whole service at work, `make test` proves it.
#
#   make SAN=address,undefined test     the same with sanitizers, in a build folder of its own
#   make CC=clang                       likewise with clang
#   make help                           all targets

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
SAN     ?=
VARIANT := $(if $(filter-out gcc,$(notdir $(CC))),-$(notdir $(CC)))$(if $(SAN),-san)$(if $(COVERAGE),-coverage)
B       := build$(VARIANT)

PACKAGES := libmicrohttpd libuv jansson sqlite3 yaml-0.1 libturbojpeg libpng libtiff-4 libwebp libzip pangocairo
LIBS_NO_PC := -lgif -ldnnl -lm -ldl -lpthread

WARN    := -Wall -Wextra -Werror -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes
OPT     ?= -O2 -g
OPENMP  := $(if $(findstring clang,$(CC)),-Wno-unknown-pragmas -Wno-source-uses-openmp,-fopenmp)
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE -Isrc -I$B/gen $(WARN) $(OPT) $(OPENMP) -fno-math-errno \
             $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined) \
             $(if $(COVERAGE),--coverage) $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null) $(CFLAGS)
LDFLAGS_ALL = $(if $(SAN),-fsanitize=$(SAN)) $(if $(COVERAGE),--coverage) $(OPENMP) -rdynamic $(LDFLAGS)
LIBS     = $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) $(LIBS_NO_PC)

SRC      := $(sort $(shell find src -name '*.c' ! -path 'src/main.c' ! -path 'src/engine/cuda/*'))
OBJ      := $(SRC:%.c=$B/%.o)
UNIT     := $(sort $(wildcard tests/unit/test_*.c tests/kernels/test_*.c tests/golden/test_*.c))
UNIT_BIN := $(UNIT:%.c=$B/%)

.PHONY: all
all: $B/rfuav

$B/rfuav: $B/src/main.o $B/librfuav.a
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$B/librfuav.a: $(OBJ)
	@rm -f $@
	ar rcs $@ $^

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(UNIT_BIN): $B/%: $B/%.o $B/librfuav.a
	$(CC) $(LDFLAGS_ALL) -o $@ $^ -lcmocka $(LIBS)

-include $(OBJ:.o=.d) $(UNIT_BIN:=.d) $B/src/main.d

# One test binary: make unit T=fields
.PHONY: unit
unit: $(if $T,$(filter %/test_$T,$(UNIT_BIN)),$(UNIT_BIN))
	@set -e; for t in $^; do $$t; done

.PHONY: clean
clean:
	rm -rf build build-*
