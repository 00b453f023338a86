/*-------------------------------------------------------------------------
 *
 * requests.c
 *	  Rows that others refer to, asked for while a batch is read.
 *
 * Where a row refers to another, the referenced row's identity is staged, and
 * noted as a request: its natural key must be sent with the batch, too.
 *
 * Staged identities are compared with each other as they are, and a NULL
 * among those of a parent would look like no parent.  So where a column of
 * the identity may hold NULL (a natural key without primary key), its values
 * are staged as text, a NULL as '' and any other value with '=' before it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "requests.h"

/* identities asked for since the last synchro_requests_take() */
struct SynchroRequests
{
	MemoryContext context;
	HTAB	   *seen;			/* all of this batch, as one string each */
	SynchroIdentities *fresh;
};

/*
 * A value of an identity as it is staged.
 */
char *
synchro_staged_value(const SynchroTable *table, int identity, char *value)
{
	if (table->columns[table->identity[identity]].not_null)
		return value;
	return value != NULL ? psprintf("=%s", value) : "";
}

/*
 * And back.
 */
static char *
unstaged_value(const SynchroTable *table, int identity, char *value)
{
	if (value == NULL || table->columns[table->identity[identity]].not_null)
		return value;
	return value[0] == '=' ? value + 1 : NULL;
}

/*
 * An identity as the remote says it, the text of an array of text with what was staged,
 * with the values that it has here.
 */
char *
synchro_unstaged_text(const SynchroTable *table, char *array_text)
{
	SynchroIdentities values = {.nidentity = 1};
	bool		staged = false;

	for (int i = 0; i < table->nidentity; i++)
		staged |= !table->columns[table->identity[i]].not_null;
	if (!staged)
		return array_text;
	values.count = synchro_identities_split(array_text, &values.values);
	for (int i = 0; i < Min(values.count, table->nidentity); i++)
		values.values[i] = unstaged_value(table, i, values.values[i]);
	return OidOutputFunctionCall(F_ARRAY_OUT, synchro_identities_array(&values, 0, values.count, 0));
}

/*
 * Note that the natural key of a row of lt, with that identity, is needed.
 */
static void
ask_for(SynchroLink *link, SynchroLinkTable *lt, char **values)
{
	struct SynchroRequests *requests = lt->requests;
	char	   *key;
	bool		found;
	MemoryContext old;

	if (requests == NULL)
	{
		old = MemoryContextSwitchTo(link->batch_context);
		requests = lt->requests = palloc0(sizeof(struct SynchroRequests));
		requests->context = link->batch_context;
		requests->seen = synchro_string_set(link->batch_context);
		requests->fresh = synchro_identities_create(lt->table);
		MemoryContextSwitchTo(old);
	}
	lt->involved = true;
	if (lt->all_names)
		return;
	key = synchro_identity_key(values, lt->table->nidentity);
	if (hash_search(requests->seen, &key, HASH_FIND, NULL) != NULL)
		return;
	old = MemoryContextSwitchTo(requests->context);
	key = pstrdup(key);
	hash_search(requests->seen, &key, HASH_ENTER, &found);
	values = memcpy(palloc(sizeof(char *) * lt->table->nidentity), values,
					sizeof(char *) * lt->table->nidentity);
	for (int i = 0; i < lt->table->nidentity; i++)
		values[i] = values[i] != NULL ? pstrdup(values[i]) : NULL;
	synchro_identities_add(requests->fresh, values);
	MemoryContextSwitchTo(old);
}

/*
 * The same of an identity as it is staged.
 */
void
synchro_request_name(SynchroLink *link, SynchroLinkTable *lt, char **values)
{
	char	   *here[INDEX_MAX_KEYS];

	for (int i = 0; i < lt->table->nidentity; i++)
		here[i] = unstaged_value(lt->table, i, values[i]);
	ask_for(link, lt, here);
}

/*
 * The same of any number of rows.
 */
void
synchro_request_names(SynchroLink *link, SynchroLinkTable *lt, const SynchroIdentities *identities)
{
	for (int i = 0; i < identities->count; i++)
		ask_for(link, lt, &identities->values[i * identities->nidentity]);
}

/*
 * Identities whose natural keys were asked for since the last call, or NULL.
 */
SynchroIdentities *
synchro_requests_take(SynchroLinkTable *lt)
{
	SynchroIdentities *fresh;
	MemoryContext old;

	if (lt->requests == NULL || lt->requests->fresh->count == 0)
		return NULL;
	old = MemoryContextSwitchTo(lt->requests->context);
	fresh = lt->requests->fresh;
	lt->requests->fresh = synchro_identities_create(lt->table);
	MemoryContextSwitchTo(old);
	return fresh;
}
