/*-------------------------------------------------------------------------
 *
 * order.c
 *	  Tables in the order of their foreign keys.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "order.h"

static void
visit_by_name(SynchroLinkTable *lt, List *tables, List **visited, List **result)
{
	if (list_member_ptr(*visited, lt))
		return;
	*visited = lappend(*visited, lt);
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk))
			visit_by_name(lt->parents[fk], tables, visited, result);
	if (list_member_ptr(tables, lt))
		*result = lappend(*result, lt);
}

/*
 * Sort tables so that each comes after those that its natural key refers to.
 * Natural keys of several tables do not go round in a circle: the registry
 * refuses such.
 */
List *
synchro_order_by_names(List *tables)
{
	List	   *visited = NIL;
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, tables)
		visit_by_name(lfirst(cell), tables, &visited, &result);
	return result;
}

/* Tarjan's algorithm (SIAM J. Comput. 1972): strongly connected components */
typedef struct Visit
{
	SynchroLinkTable *lt;
	int			index;
	int			low;
	bool		on_stack;
} Visit;

typedef struct Components
{
	List	   *tables;
	List	   *visits;
	List	   *stack;
	List	   *result;
	int			next_index;
} Components;

static Visit *
find_visit(Components *components, SynchroLinkTable *lt)
{
	ListCell   *cell;

	foreach(cell, components->visits)
	{
		Visit	   *visit = lfirst(cell);

		if (visit->lt == lt)
			return visit;
	}
	return NULL;
}

static Visit *
visit_component(Components *components, SynchroLinkTable *lt)
{
	Visit	   *visit = palloc0(sizeof(Visit));

	visit->lt = lt;
	visit->index = visit->low = components->next_index++;
	visit->on_stack = true;
	components->visits = lappend(components->visits, visit);
	components->stack = lappend(components->stack, visit);

	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		Visit	   *parent;

		if (lt->parents[fk] == NULL)
			continue;
		parent = find_visit(components, lt->parents[fk]);
		if (parent == NULL)
		{
			parent = visit_component(components, lt->parents[fk]);
			visit->low = Min(visit->low, parent->low);
		}
		else if (parent->on_stack)
			visit->low = Min(visit->low, parent->index);
	}

	if (visit->low == visit->index)
	{
		List	   *component = NIL;
		Visit	   *member;

		do
		{
			member = llast(components->stack);
			components->stack = list_delete_last(components->stack);
			member->on_stack = false;
			if (list_member_ptr(components->tables, member->lt))
				component = lcons(member->lt, component);
		} while (member != visit);
		if (component != NIL)
			components->result = lappend(components->result, component);
	}
	return visit;
}

/*
 * Sort tables into components, lists of tables that refer to each other in a
 * circle (mostly of one), each after those that it refers to.
 */
List *
synchro_order_by_references(List *tables)
{
	Components	components = {0};
	ListCell   *cell;

	components.tables = tables;
	foreach(cell, tables)
		if (find_visit(&components, lfirst(cell)) == NULL)
			visit_component(&components, lfirst(cell));
	return components.result;
}
