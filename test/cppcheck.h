/*
 * What cppcheck has to know of the server's macros: it does not read the server's headers, which takes it hours.
 */
#define ERROR 21
#define CppAsString2(x) #x
#define ereport(elevel, ...) do { if ((elevel) >= ERROR) abort(); } while (0)
#define elog(elevel, ...) do { if ((elevel) >= ERROR) abort(); } while (0)
#define foreach(cell, list) for (cell = list_head(list); cell != NULL; cell = lnext(list, cell))
#define PG_TRY() do { int thrown = setjmp(0); if (thrown == 0) {
#define PG_CATCH() } else {
#define PG_FINALLY() } {
#define PG_END_TRY() } } while (0)
