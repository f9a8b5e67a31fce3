use std::collections::BTreeSet;

use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;

/// `:a` and `:b` are the columns 0 and 1.
fn parse(sql: &str) -> Result<Template, TemplateError> {
    Template::parse(sql, |name| ["a", "b"].iter().position(|known| *known == name))
}

fn filled(sql: &str, row: &[Cell<'_>]) -> String {
    parse(sql).unwrap().fill(row)
}

#[test]
fn parameters_are_where_sqlite_sees_them_and_nowhere_else() {
    let row = [Cell::Int(1), Cell::Text("it's")];
    assert_eq!(filled("SELECT :a, :b", &row), "SELECT  1 ,  'it''s' ");
    assert_eq!(
        filled("SELECT ':a', \":a\", `:a`, [:a] -- :a\n/* :a */, :a;  -- done", &row),
        "SELECT ':a', \":a\", `:a`, [:a] -- :a\n/* :a */,  1 "
    );
    assert_eq!(filled("SELECT 'it''s :a', x'61', :b", &row), "SELECT 'it''s :a', x'61',  'it''s' ");
    assert_eq!(filled("SELECT 5 -:a", &[Cell::Int(-1)]), "SELECT 5 - -1 ", "no comment begins");
    assert!(matches!(parse("SELECT 1 AS x:b").unwrap_err(), TemplateError::Syntax(_)), "no literal of bytes");
    assert_eq!(filled("SELECT :b'x'", &row), "SELECT  'it''s' 'x'", "texts do not join");
    assert_eq!(filled("SELECT :a", &[]), "SELECT  NULL ");
}

#[test]
fn what_is_no_query_is_refused_with_the_reason() {
    use TemplateError::{Form, NoColumn, NoQuery, Nul, Open, Several, Syntax};
    assert_eq!(parse("SELECT :pid").unwrap_err(), NoColumn("pid".into()));
    for form in ["?", "?1", "@a", "$a", ":"] {
        assert_eq!(parse(&format!("SELECT {form}")).unwrap_err(), Form(form.into()));
    }
    assert_eq!(parse("SELECT 'x").unwrap_err(), Open("a text"));
    assert_eq!(parse("SELECT 1 /* x").unwrap_err(), Open("a comment"));
    assert_eq!(parse("SELECT 1 /*/").unwrap_err(), Open("a comment"));
    assert_eq!(parse("SELECT \"x").unwrap_err(), Open("a quoted name"));
    assert_eq!(parse("SELECT 1; SELECT 2").unwrap_err(), Several);
    assert_eq!(parse("SELECT 1\0").unwrap_err(), Nul);
    for none in ["", ";", "-- SELECT", "DELETE FROM users", "ATTACH 'x' AS y"] {
        assert_eq!(parse(none).unwrap_err(), NoQuery, "{none:?}");
    }
    assert!(matches!(parse("SELECT FROM WHERE").unwrap_err(), Syntax(_)));
    assert!(matches!(parse("SELECT (1").unwrap_err(), Syntax(_)));
    assert!(parse("SELECT * FROM a_table_of_osquery WHERE x = :a;").is_ok());
}

fn cell() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![any::<String>(), "[-'\"`\\[\\];:/*\\\\\0\n a-z]{0,30}"];
    prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::Integer), Just(Value::Integer(i64::MIN)), texts.prop_map(Value::Text)]
}

fn as_cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Integer(int) => Cell::Int(*int),
        Value::Text(text) => Cell::Text(text),
        _ => Cell::Null,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_literal_gives_its_value_back_and_is_nothing_else(a in cell(), b in cell()) {
        let sql = filled("SELECT :a,:b,typeof(:a)/**/,:b IS:b,'end'--:a", &[as_cell(&a), as_cell(&b)]);
        let connection = Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare(&sql).unwrap();
        prop_assert_eq!(statement.column_count(), 5);
        prop_assert_eq!(statement.parameter_count(), 0);
        let rows: Vec<[Value; 5]> = statement
            .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let kind = match a { Value::Null => "null", Value::Integer(_) => "integer", _ => "text" };
        prop_assert_eq!(rows, [[a, b, Value::Text(kind.into()), Value::Integer(1), Value::Text("end".into())]]);
    }

    #[test]
    fn finds_the_parameters_that_sqlite_finds(
        parts in prop::collection::vec(prop::sample::select(vec![
            ":a", ":b", "'", "''", "\"", "`", "[", "]", "--", "\n", "/*", "*/", "x", "1", " ", ",", "-", "/", "é", "$", "x'61'", "'it'", "||",
        ]), 0..14),
    ) {
        let sql = format!("SELECT 1,{}", parts.concat());
        let connection = Connection::open_in_memory().unwrap();
        if let (Ok(statement), Ok(template)) = (connection.prepare(&sql), parse(&sql)) {
            let theirs: BTreeSet<_> = (1..=statement.parameter_count()).map(|at| statement.parameter_name(at).unwrap().to_owned()).collect();
            let ours: BTreeSet<_> = template.columns().map(|column| [":a", ":b"][column].to_owned()).collect();
            prop_assert_eq!(ours, theirs, "{}", sql);
        }
    }
}
