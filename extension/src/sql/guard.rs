//! What a statement may do: read. Whoever may ask the recorder need not be able to write files as its user.

use rusqlite::{
    Connection, Result,
    hooks::{AuthAction, AuthContext, Authorization},
};

/// Pragmas that describe tables and functions.
const PRAGMAS: [&str; 6] = ["table_info", "table_xinfo", "table_list", "function_list", "module_list", "compile_options"];

/// Lets a connection prepare nothing but queries.
pub(super) fn only_reads(connection: &mut Connection) -> Result<()> {
    connection.authorizer(Some(|context: AuthContext<'_>| if reads(&context.action) { Authorization::Allow } else { Authorization::Deny }))
}

pub(crate) fn reads(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        AuthAction::Pragma { pragma_name, .. } => PRAGMAS.iter().any(|name| name.eq_ignore_ascii_case(pragma_name)),
        _ => false,
    }
}
