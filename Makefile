# synchro: build, install, test, show.
#
#   make                build for the PostgreSQL of PG_CONFIG
#   make install        install it there (as the owner of that installation)
#   make check          all tests on servers of their own; ONLY=regex runs some, KEEP=1 keeps the folder
#   make check-versions the same on several PostgreSQL versions, in chroots (as root, on Debian); VERSIONS='17 18' picks
#   make check-asserts  the same on a server built with assertions (as root, on Debian)
#   make check-valgrind the same under valgrind, on a server built for that: ONLY=regex, or it takes hours
#   make check-sanitizers the same server, with gcc's sanitizers for addresses and undefined behaviour in the extension
#   make coverage       the same, and which share of the sources' lines was run
#   make lint           cppcheck and clang's analyzer on the sources
#   make demo           two throwaway servers, real data, a synchronization
#   make bench          how fast it is, on throwaway servers; QUICK=1, ONLY=regex, see test/bench/README.md
#   make clean          remove what was built
#
# PG_CONFIG=/path/to/pg_config names the installation; without it the newest one with server headers is taken.
# check, demo and bench need nothing but git and make beforehand: test/deps installs the rest, or says what is missing.

EXTENSION = synchro
MODULE_big = synchro
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA = $(sort $(wildcard src/synchro--*.sql))
PGFILEDESC = "synchro - keeps another PostgreSQL database in step, by natural key"

# The pg_regress tests, in the order in which they run. A file in sql/ that is not listed here fails `make check`.
REGRESS = registration remotes capture manifest

# The isolation specs are found by name; `make installcheck` wants them relative to test/.
ISOLATION := $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test

PG_CPPFLAGS = -I$(libpq_srcdir)
PG_CFLAGS = -Wextra -Wshadow=local -Wold-style-definition \
	-Wno-clobbered -Wno-missing-field-initializers -Wno-sign-compare -Wno-unused-parameter
SHLIB_LINK_INTERNAL = $(libpq)
EXTRA_CLEAN = $(wildcard src/*.o src/*.bc) results regression.diffs regression.out tmp_check tmp_check_iso output_iso log

PG_CONFIG_GIVEN := $(PG_CONFIG)
ifeq ($(PG_CONFIG_GIVEN),)
PG_CONFIG := $(shell bash test/pg-config)
endif

# PGXS has a target `check` of its own and cannot be included where PostgreSQL is missing, so ours go without it.
OURS = check check-versions check-asserts check-valgrind check-sanitizers coverage lint demo bench

ifneq ($(filter $(OURS),$(MAKECMDGOALS)),)

.PHONY: $(MAKECMDGOALS)

check coverage lint demo bench: export PG_CONFIG := $(PG_CONFIG_GIVEN)
check coverage: export REGRESS := $(REGRESS)
check check-versions check-asserts check-valgrind check-sanitizers coverage bench: export ONLY := $(ONLY)
check coverage demo bench: export KEEP := $(KEEP)
bench: export QUICK := $(QUICK)
check: export VALGRIND := $(VALGRIND)

check:
	@bash test/deps
	@bash test/check

check-versions:
	@bash test/deps
	@bash test/versions $(VERSIONS)

check-asserts:
	@bash test/deps
	@bash test/asserts

check-valgrind:
	@bash test/deps
	@VALGRIND="$(or $(VALGRIND),1)" bash test/asserts

check-sanitizers:
	@bash test/deps
	@SANITIZE=1 bash test/asserts

coverage:
	@bash test/deps
	@COVERAGE=1 bash test/check

lint:
	@bash test/deps cppcheck clang
	@bash test/lint

demo:
	@bash test/deps
	@bash test/demo/run

bench:
	@bash test/deps
	@bash test/bench/deps
	@bash test/bench/run

# Goals named beside ours: `make clean check`.
$(filter-out $(OURS),$(MAKECMDGOALS)):
	@$(MAKE) --no-print-directory $@

else ifeq ($(PG_CONFIG),)

.PHONY: all install uninstall installcheck clean
all install uninstall installcheck:
	@echo "No PostgreSQL 15 or newer with server headers was found." >&2
	@echo "Install them (Debian: postgresql-server-dev-15) or name one: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 1

clean:
	rm -rf $(OBJS) $(MODULE_big).so lib$(MODULE_big).a lib$(MODULE_big).pc $(EXTRA_CLEAN)

else

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# clang does not know all of gcc's options and attributes, with which the server may have been built.
ifneq ($(findstring clang,$(CC)),)
override CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

# Since PostgreSQL 16 the expected files of the specs are not looked for beside the specs.
ifneq ($(MAJORVERSION),15)
ISOLATION_OPTS += --expecteddir=test
endif

# PGXS of the distributions does not track headers.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h)

endif
