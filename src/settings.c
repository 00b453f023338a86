/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Configuration parameters, in alphabetical order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "settings.h"

#define MIN_BATCH_SIZE			1
#define DEFAULT_BATCH_SIZE		10000
#define MAX_BATCH_SIZE			1000000
#define MIN_BUFFER_SIZE			64
#define DEFAULT_BUFFER_SIZE		1024
#define MAX_BUFFER_SIZE			(512 * 1024)	/* half of what a StringInfo holds */
#define DEFAULT_CLOCK_UNCERTAINTY 1000
#define DEFAULT_CONFLICTS_KEPT	10000
#define DEFAULT_CONNECT_TIMEOUT 10
#define MAX_CONNECT_TIMEOUT		3600
#define DEFAULT_LOG_RETENTION	(24 * 60 * 60)
#define DEFAULT_RETRY_INTERVAL	(5 * 60)
#define MAX_RETRY_INTERVAL		(24 * 60 * 60)
#define DEFAULT_STATEMENT_TIMEOUT (10 * 60 * 1000)
#define DEFAULT_VERIFY_WAIT		60
#define MAX_VERIFY_WAIT			(24 * 60 * 60)

bool		synchro_atomic_pass = false;
int			synchro_batch_size = DEFAULT_BATCH_SIZE;
int			synchro_buffer_size = DEFAULT_BUFFER_SIZE;
int			synchro_conflicts_kept = DEFAULT_CONFLICTS_KEPT;
int			synchro_connect_timeout = DEFAULT_CONNECT_TIMEOUT;
bool		synchro_log_changes = true;
int			synchro_log_retention = DEFAULT_LOG_RETENTION;
int			synchro_max_clock_uncertainty = DEFAULT_CLOCK_UNCERTAINTY;
int			synchro_retry_max_interval = DEFAULT_RETRY_INTERVAL;
int			synchro_statement_timeout = DEFAULT_STATEMENT_TIMEOUT;
int			synchro_verify_wait = DEFAULT_VERIFY_WAIT;

/*
 * Define the parameters; called once when the library is loaded.
 */
void
synchro_settings_init(void)
{
	DefineCustomBoolVariable("synchro.atomic_pass",
							 "Applies each pass in one remote transaction.",
							 "Off, a pass of many batches commits each of them.",
							 &synchro_atomic_pass, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.batch_size",
							"Sets how many rows are applied in one remote transaction.",
							"Of a large backlog, up to five times as many are while that is quick.",
							&synchro_batch_size, DEFAULT_BATCH_SIZE,
							MIN_BATCH_SIZE, MAX_BATCH_SIZE,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.buffer_size",
							"Sets how much memory a transaction's changed keys may take before they are written to the log.",
							"Changes are written at commit otherwise.",
							&synchro_buffer_size, DEFAULT_BUFFER_SIZE,
							MIN_BUFFER_SIZE, MAX_BUFFER_SIZE,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.conflicts_kept",
							"Sets how many conflicts are remembered.",
							"Older ones are forgotten.  Zero records none.",
							&synchro_conflicts_kept, DEFAULT_CONFLICTS_KEPT,
							0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.connect_timeout",
							"Sets how long to wait for a connection to a remote.",
							"The option connect_timeout of a server takes precedence.",
							&synchro_connect_timeout, DEFAULT_CONNECT_TIMEOUT,
							1, MAX_CONNECT_TIMEOUT,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("synchro.log_changes",
							 "Logs changes of watched tables.",
							 "Set it off for a transaction, a function or a role whose changes are not to be pushed.",
							 &synchro_log_changes, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.log_retention",
							"Sets how long changes are kept in the log after every remote has got them.",
							"They are kept longer as long as a remote needs them.",
							&synchro_log_retention, DEFAULT_LOG_RETENTION,
							0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.max_clock_uncertainty",
							"Sets how exactly the clocks of two nodes must be known to each other before changes are pushed.",
							"It counts only between nodes that both run synchro.",
							&synchro_max_clock_uncertainty, DEFAULT_CLOCK_UNCERTAINTY,
							1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.retry_max_interval",
							"Sets the longest time between two attempts to reach a remote.",
							"The first attempts come sooner after each other.",
							&synchro_retry_max_interval, DEFAULT_RETRY_INTERVAL,
							1, MAX_RETRY_INTERVAL,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.statement_timeout",
							"Sets how long one statement may take on a remote.",
							"Zero turns this off.",
							&synchro_statement_timeout, DEFAULT_STATEMENT_TIMEOUT,
							0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("synchro.verify_wait",
							"Sets how long verify() waits, each time, until what is pending has been pushed.",
							"Rows that differ and may still be under way then are left out.",
							&synchro_verify_wait, DEFAULT_VERIFY_WAIT,
							1, MAX_VERIFY_WAIT,
							PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	MarkGUCPrefixReserved("synchro");
}
