//! What a function could return instead, by the type that it says it returns. Where that does not compile, the build
//! says so and the mutant is dropped.

use syn::{GenericArgument, PathArguments, Type};

/// Expressions of this type that are wrong more often than not.
pub fn of(kind: &Type) -> Vec<String> {
    match kind {
        Type::Paren(inner) => of(&inner.elem),
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".to_owned()],
        Type::Tuple(tuple) => {
            let firsts: Option<Vec<String>> =
                tuple.elems.iter().map(|each| of(each).into_iter().next()).collect();
            firsts.map(|firsts| format!("({})", firsts.join(", "))).into_iter().collect()
        }
        Type::Array(array) => {
            of(&array.elem).into_iter().take(2).map(|value| format!("[{value}; _]")).collect()
        }
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::Slice(_) => vec!["&[]".to_owned()],
            Type::Path(path) if path.path.is_ident("str") => vec!["\"\"".to_owned(), "\"other\"".to_owned()],
            _ => Vec::new(),
        },
        Type::Path(path) => path.path.segments.last().map(of_name).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn of_name(last: &syn::PathSegment) -> Vec<String> {
    let arguments: Vec<&Type> = match &last.arguments {
        PathArguments::AngleBracketed(given) => given
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(kind) => Some(kind),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let inner = || arguments.first().map(|kind| of(kind)).unwrap_or_default();
    let words: Vec<&str> = match last.ident.to_string().as_str() {
        "bool" => vec!["true", "false"],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => {
            vec!["0", "1"]
        }
        "f32" | "f64" => vec!["0.0", "1.0"],
        "String" => vec!["String::new()", "String::from(\"other\")"],
        "Vec" => vec!["Vec::new()"],
        "Ordering" => vec!["std::cmp::Ordering::Equal"],
        "Result" => return inner().into_iter().map(|value| format!("Ok({value})")).collect(),
        "Option" => {
            return std::iter::once("None".to_owned())
                .chain(inner().into_iter().map(|value| format!("Some({value})")))
                .collect();
        }
        _ => vec!["Default::default()"],
    };
    words.into_iter().map(str::to_owned).collect()
}
