/*-------------------------------------------------------------------------
 *
 * capturetables.c
 *	  The tables that the transaction has changed, by numbers.
 *
 * A record in the buffer (capturebuffer.c) bears two bytes of its table.  A table
 * that is altered within the transaction has a number for each layout.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "capturetables.h"

/* table of the present transaction */
typedef struct TxTable
{
	Oid			relation;
	uint32		layout;
	CommandId	moved;			/* that wrote its last moved record, or
								 * InvalidCommandId */
} TxTable;

static uint64 tx_epoch = 1;
static TxTable *tx_tables = NULL;	/* stays for the next transaction */
static int	tx_ntables = 0;
static int	tx_maxtables = 0;

/*
 * The number that a table with this layout has in the transaction; a record of the
 * buffer bears it.  Raises an error if there are none left.
 */
uint16
synchro_capture_table_index(SynchroTablePlace *place, Oid relation, uint32 layout)
{
	if (place->tx_epoch == tx_epoch)
		return place->tx_index;

	/* who keeps no place may come many times, and partitions have their root's; mostly the last one is it */
	for (int i = tx_ntables - 1; i >= 0; i--)
	{
		if (tx_tables[i].relation == relation && tx_tables[i].layout == layout)
		{
			place->tx_epoch = tx_epoch;
			place->tx_index = i;
			return place->tx_index;
		}
	}
	if (tx_ntables > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many watched tables changed in one transaction")));
	if (tx_ntables == tx_maxtables)
	{
		tx_maxtables = Max(16, tx_maxtables * 2);
		tx_tables = tx_tables == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(TxTable) * tx_maxtables) :
			repalloc(tx_tables, sizeof(TxTable) * tx_maxtables);
	}
	tx_tables[tx_ntables].relation = relation;
	tx_tables[tx_ntables].layout = layout;
	tx_tables[tx_ntables].moved = InvalidCommandId;
	place->tx_epoch = tx_epoch;
	place->tx_index = tx_ntables++;
	return place->tx_index;
}

/*
 * The table, and its layout, that has this number.
 */
Oid
synchro_capture_table(uint16 index, uint32 *layout)
{
	*layout = tx_tables[index].layout;
	return tx_tables[index].relation;
}

/*
 * A record of a row that this command has moved is about to come: was the
 * table's last such record the same command's?  A table that was altered may have
 * several entries: the first counts.
 *
 * What a subtransaction that has failed leaves behind does no harm: no command
 * has its number again.
 */
bool
synchro_capture_moves_together(SynchroTablePlace *place, Oid relation, uint32 layout, CommandId command)
{
	int			index = synchro_capture_table_index(place, relation, layout);
	bool		together;

	for (int i = 0; i < index; i++)
		if (tx_tables[i].relation == relation)
			index = i;
	together = tx_tables[index].moved == command;
	tx_tables[index].moved = command;
	return together;
}

/*
 * The transaction has ended.
 */
void
synchro_capture_forget_tables(void)
{
	tx_epoch++;
	tx_ntables = 0;
}
