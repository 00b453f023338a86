/*-------------------------------------------------------------------------
 *
 * module.c
 *	  Magic block and initialization: calls of init functions only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "capture.h"
#include "capturexact.h"
#include "ddlhook.h"
#include "launcher.h"
#include "settings.h"
#include "sharedstate.h"
#include "tableinfo.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/*
 * Called when the library is loaded: by a backend at the first use of the
 * extension, or by the postmaster with shared_preload_libraries.
 */
void
_PG_init(void)
{
	synchro_settings_init();
	synchro_table_init();
	synchro_capture_init();
	synchro_capturexact_init();
	if (process_shared_preload_libraries_in_progress)
	{
		synchro_shared_init();
		synchro_ddlhook_init();

		/* pg_upgrade takes the log's files as they were when it read the catalogs */
		if (!IsBinaryUpgrade)
			synchro_launcher_register();
	}
}
