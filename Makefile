# One non-recursive Makefile. `make` builds build/rfuav, `make run` shows the whole service at work, `make test`
# proves it; both install missing Debian packages first. `make help` lists everything.
#
#   make SAN=address,undefined unit     the same with sanitizers, in a build folder of its own
#   make CC=clang                       likewise with clang
#   make V=1                            shows the commands

ifeq ($(origin CC),default)
CC      := gcc
endif
SHELL   := /bin/bash
SAN     ?=
EMPTY   :=
COMMA   := ,
SPACE   := $(EMPTY) $(EMPTY)
VARIANT := $(if $(filter-out gcc,$(notdir $(CC))),-$(notdir $(CC)))$(if $(SAN),-$(subst $(COMMA),-,$(SAN)))$(if $(COVERAGE),-coverage)
B       := build$(VARIANT)
Q       := $(if $V,,@)
PYTHON  ?= /usr/bin/python3

# --- what it is made of ---------------------------------------------------------------------------------------------

PACKAGES   := libmicrohttpd libuv jansson sqlite3 yaml-0.1 libjpeg libpng libtiff-4 libwebp libwebpdemux zlib \
              pangocairo fftw3f libxxhash
LIBS_NO_PC := -lgif -ldnnl -lm -ldl -lpthread

DEB_BUILD  := gcc make pkg-config libmicrohttpd-dev libuv1-dev libjansson-dev libsqlite3-dev libyaml-dev \
              libjpeg-dev libpng-dev libtiff-dev libgif-dev libwebp-dev zlib1g-dev \
              libpango1.0-dev libfftw3-dev libdnnl-dev libxxhash-dev fonts-noto-cjk libavcodec-dev libavformat-dev libswscale-dev
DEB_TEST   := libcmocka-dev python3 python3-requests python3-yaml python3-pil python3-numpy python3-torch \
              python3-torchvision ffmpeg
DEB_DEV    := clang clang-tidy clang-format cppcheck libclang-rt-dev lcov valgrind wrk bear

WARN    := -Wall -Wextra -Werror -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes
OPT     ?= -O2 -g
OPENMP  := $(if $(findstring clang,$(CC)),-Wno-unknown-pragmas,-fopenmp)
CFLAGS_ALL  = -std=c17 -D_GNU_SOURCE -Isrc $(WARN) $(OPT) $(OPENMP) -fno-math-errno \
              $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined) \
              $(if $(COVERAGE),--coverage) $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = $(if $(SAN),-fsanitize=$(SAN)) $(if $(COVERAGE),--coverage) $(OPENMP) -rdynamic $(LDFLAGS)
LIBS        = $(PKG_LIBS) $(LIBS_NO_PC)
# asked once, and only when something is built (the packages may be missing before `make deps`)
PKG_CFLAGS  = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PACKAGES)))$(PKG_LIBS)

SRC      := $(sort $(shell find src -name '*.c' ! -path 'src/main.c' ! -path 'src/data/video_encoder.c' \
              ! -path 'src/engine/cuda/*'))
OBJ      := $(SRC:%.c=$B/%.o)
UNIT     := $(sort $(wildcard tests/unit/test_*.c tests/kernels/test_*.c tests/golden/test_*.c))
UNIT_BIN := $(UNIT:%.c=$B/%)
FUZZ     := $(sort $(wildcard tests/fuzz/fuzz_*.c))
DRIVER   := $(sort $(wildcard tests/formats/*.c tests/bench/*.c))
DRIVER_BIN := $(DRIVER:%.c=$B/%)
GPU_TEST := $(sort $(wildcard tests/gpu/*.c))
GPU_BIN  := $(GPU_TEST:%.c=$B/%)
REPLAY   := $(FUZZ:tests/fuzz/fuzz_%.c=$B/tests/fuzz/replay_%)

# --- building -------------------------------------------------------------------------------------------------------

.PHONY: all
all: $B/rfuav

# the path of libraries is for `make bundle`; an old-style one, which counts for the libraries' own needs too
$B/rfuav: $B/src/main.o $B/librfuav.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS_ALL) -Wl,-rpath,'$$ORIGIN/../lib',--disable-new-dtags -o $@ $^ $(LIBS)

$B/librfuav.a: $(OBJ)
	@echo "  AR    $@"
	$Q rm -f $@ && ar rcs $@ $^

$B/%.o: %.c
	@echo "  CC    $<"
	@mkdir -p $(@D)
	$Q$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# What needs FFmpeg's libraries, which would make every start slow: opened by the worker that has a video to write.
VIDEO_SO       := $B/librfuav_video.so
VIDEO_PACKAGES := libavformat libavcodec libswscale libavutil
all unit-build: $(VIDEO_SO)
$(VIDEO_SO): src/data/video_encoder.c src/data/video_encoder.h
	@echo "  LINK  $@"
	@mkdir -p $(@D)
	$Q$(CC) $(CFLAGS_ALL) $$(pkg-config --cflags $(VIDEO_PACKAGES)) -fPIC -shared -fvisibility=hidden -o $@ $< \
	    $$(pkg-config --libs $(VIDEO_PACKAGES)) $(if $(COVERAGE),--coverage)

# loops that the processor chooses among at run time
ifeq ($(shell uname -m),x86_64)
$B/src/engine/cpu/simd_avx2.o: CFLAGS += -mavx2 -mfma
$B/src/engine/cpu/simd_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
endif

$(UNIT_BIN): $B/%: $B/%.o $B/librfuav.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS_ALL) -o $@ $^ -lcmocka $(LIBS)

$(DRIVER_BIN): $B/%: $B/%.o $B/librfuav.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(REPLAY): $B/tests/fuzz/replay_%: $B/tests/fuzz/fuzz_%.o $B/tests/fuzz/replay.o $B/librfuav.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# --- the CUDA object: built where nvcc and cuDNN's headers are; only workers open it -----------------------------------

CUDA_HOME  ?= $(firstword $(wildcard /usr/local/cuda /usr/local/cuda-13* /usr/local/cuda-12*) /usr)
NVCC       ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc))
CUDNN_INC  ?= $(patsubst %/cudnn_graph.h,%,$(firstword $(wildcard $(CUDA_HOME)/include/cudnn_graph.h \
              /usr/include/cudnn_graph.h /usr/include/x86_64-linux-gnu/cudnn_graph.h \
              /usr/local/lib/python3*/*-packages/nvidia/cudnn/include/cudnn_graph.h)))
CUDA_ARCH  ?= 80 90
CUDA_SRC   := $(sort $(wildcard src/engine/cuda/*.c src/engine/cuda/*.cu))
CUDA_OBJ   := $(CUDA_SRC:%=$B/%.o)
CUDA_SO    := $B/librfuav_cuda.so
CUDA_GEN    = $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a,code=sm_$a) \
              -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH))

ifneq ($(and $(NVCC),$(CUDNN_INC),$(if $(SAN)$(COVERAGE),,yes)),)
all: $(CUDA_SO)
endif
.PHONY: cuda gpu-tests
cuda: $(CUDA_SO) ## the CUDA object alone; CUDA_HOME, CUDA_ARCH="80 90" and CUDNN_INC can be set
gpu-tests: $(CUDA_SO) $(GPU_BIN) ## the programs of tests/gpu, which tests/gpu/run.sh runs

$(CUDA_SO): $(CUDA_OBJ)
	@echo "  LINK  $@"
	$Q$(CC) -shared -o $@ $^ -static-libgcc -Wl,--exclude-libs,ALL -Wl,-Bstatic -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -Wl,-Bdynamic -lm -ldl -lpthread -lrt

$B/%.c.o: %.c
	@echo "  CC    $<"
	@mkdir -p $(@D)
	$Q$(CC) $(filter-out $(OPENMP),$(CFLAGS_ALL)) -fPIC -fvisibility=hidden -isystem $(CUDA_HOME)/include -isystem $(CUDNN_INC) -MMD -MP -c -o $@ $<

$B/%.cu.o: %.cu
	@echo "  NVCC  $<"
	@mkdir -p $(@D)
	$Q$(NVCC) -std=c++17 -O3 -Isrc $(CUDA_GEN) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra -MMD -MP -c -o $@ $<

# without the CPU backend and the libraries of the service, so that they run on a bare GPU server; -u: only the CUDA
# object calls it
$(GPU_BIN): $B/%: $B/%.o $B/librfuav.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS_ALL) -Wl,-u,cache_home -o $@ $^ $(GPU_LIBS) -lm -ldl -lpthread
$B/tests/gpu/jpeg $B/tests/gpu/epochs: GPU_LIBS = -Wl,--as-needed $(LIBS)

-include $(CUDA_OBJ:.o=.d) $(GPU_BIN:=.d)
-include $(OBJ:.o=.d) $(UNIT_BIN:=.d) $(DRIVER_BIN:=.d) $B/src/main.d

.PHONY: bundle
bundle: all ## a folder and archive with every library, for machines without network
	@tools/bundle $B

# --- packages -------------------------------------------------------------------------------------------------------

.PHONY: deps deps-test deps-dev
deps:
	@tools/install-packages $(DEB_BUILD)
deps-test:
	@tools/install-packages $(DEB_BUILD) $(DEB_TEST)
deps-dev:
	@tools/install-packages $(DEB_BUILD) $(DEB_TEST) $(DEB_DEV)

# --- running --------------------------------------------------------------------------------------------------------

.PHONY: run
run: ## install what is missing, build, start the service, make data, train, infer, show the result
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tools/demo $B/rfuav

# --- testing --------------------------------------------------------------------------------------------------------

.PHONY: test
test: ## install what is missing, build, run every test
	@$(MAKE) --no-print-directory deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all unit-build
	@$(PYTHON) tests/run.py --build $B

.PHONY: unit unit-build
unit-build: $(UNIT_BIN) $(DRIVER_BIN) $(GPU_BIN) $(REPLAY)
unit: $(if $T,$(filter %/test_$T,$(UNIT_BIN)),$(UNIT_BIN)) ## C tests alone; T=name runs tests/*/test_name.c
	@set -e; for t in $^; do echo "== $$t"; $$t; done

.PHONY: bench-cpu
bench-cpu: $B/tests/bench/bench_net ## the engine beside PyTorch on the CPU, about ten minutes
	@$(PYTHON) tests/bench/cpu.py --bench $<

SECONDS_EACH ?= 60
.PHONY: fuzz
fuzz: ## every parser of foreign bytes under libFuzzer, SECONDS_EACH=60
	@$(MAKE) --no-print-directory deps-dev
	@$(MAKE) --no-print-directory -j$$(nproc) CC=clang SAN=fuzzer-no-link,address,undefined fuzz-run

# under clang with SAN above: one binary a target, run over a copy of its corpus
FUZZ_BIN := $(FUZZ:tests/fuzz/%.c=$B/tests/fuzz/%)
$(FUZZ_BIN): $B/%: $B/%.o $B/librfuav.a
	$Q$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS)
.PHONY: fuzz-run
fuzz-run: $(FUZZ_BIN)
	@set -e; for t in $(if $T,$(filter %/fuzz_$T,$^),$^); do name=$${t##*/fuzz_}; mkdir -p $B/corpus/$$name; \
	    echo "== $$name, $(SECONDS_EACH) s"; \
	    $$t -artifact_prefix=$B/corpus/ -max_total_time=$(SECONDS_EACH) -rss_limit_mb=4096 -timeout=20 -print_final_stats=1 \
	        $B/corpus/$$name tests/fuzz/corpus/$$name >$B/corpus/$$name.log 2>&1 || \
	        { tail -n 60 $B/corpus/$$name.log; exit 1; }; \
	    grep -E 'Done|stat::number_of_executed_units' $B/corpus/$$name.log; done

MINUTES ?= 10
.PHONY: soak chaos
soak chaos: all ## random use for MINUTES=10; chaos also kills workers and the daemon
	@RFUAV_BIN=$(CURDIR)/$B/rfuav $(PYTHON) tests/soak.py --seconds $$(($(MINUTES) * 60)) $(if $(filter chaos,$@),--chaos)

# --- checking -------------------------------------------------------------------------------------------------------

C_FILES = $(sort $(shell find src tests -name '*.[ch]'))
.PHONY: check format
check: ## layers, formatting, clang-tidy, cppcheck, both compilers, all tests under ASan and UBSan
	@$(MAKE) --no-print-directory deps-dev
	@tools/check-includes
	@clang-format --dry-run --Werror $(C_FILES)
	@$(MAKE) --no-print-directory -j$$(nproc) CC=gcc all unit-build
	@$(MAKE) --no-print-directory -j$$(nproc) CC=clang all unit-build
	@$(MAKE) --no-print-directory tidy cppcheck
	@$(MAKE) --no-print-directory -j$$(nproc) SAN=address,undefined all unit-build
	@ASAN_OPTIONS=detect_leaks=1 $(PYTHON) tests/run.py --build build-address-undefined
format: ## clang-format every file
	@clang-format -i $(C_FILES)

.PHONY: tidy cppcheck
tidy: ## clang-tidy; of the CUDA object too where its headers are
	@printf '%s\n' $(SRC) src/main.c $(if $(CUDNN_INC),$(filter %.c,$(CUDA_SRC))) | xargs -P $$(nproc) -n 1 sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$$@" \
	    -- -std=c17 -D_GNU_SOURCE -Isrc $(PKG_CFLAGS) $(if $(CUDNN_INC),-isystem $(CUDA_HOME)/include -isystem $(CUDNN_INC)) \
	    -Wno-unknown-pragmas 2>/dev/null' tidy
cppcheck: ## cppcheck
	@cppcheck --quiet --std=c11 --library=posix --library=gnu --library=sqlite3 --include=tools/cppcheck-macros.h \
	    --enable=warning,portability,performance --inline-suppr --error-exitcode=1 -j $$(nproc) \
	    --suppressions-list=tools/cppcheck-suppressions -D_GNU_SOURCE -Isrc src

.PHONY: coverage
coverage: ## line coverage of the C code over all tests
	@$(MAKE) --no-print-directory deps-dev
	@$(MAKE) --no-print-directory -j$$(nproc) COVERAGE=1 all unit-build
	@find build-coverage -name '*.gcda' -delete
	@$(PYTHON) tests/run.py --build build-coverage | grep -v '^ok'
	@lcov --quiet --capture --directory build-coverage/src --base-directory . --no-external --output-file build-coverage/lcov.info
	@lcov --list build-coverage/lcov.info | tail -n +4

.PHONY: help
help: ## this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: clean
clean: ## remove every build folder
	rm -rf build build-*
