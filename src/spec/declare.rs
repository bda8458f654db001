//! How types of the language are declared: [`record!`](crate::record) for mappings, [`choice!`](crate::choice) for words.
//!
//! One declaration gives the type, its reader and its JSON Schema, so that the three cannot differ. Used by `spec` and `site`.

/// Declares a struct that is written as a YAML mapping: its reader, its refusal of unknown keys and its JSON Schema.
///
/// A field is required unless its type has an `absent` value or a default follows behind `=`.
#[macro_export]
macro_rules! record {
    (
        $(#[doc = $doc:expr])+
        $(#[check($check:path)])?
        pub struct $name:ident ($what:literal) {
            $(
                $(#[doc = $field_doc:expr])+
                $field:ident $(as $key:literal)? : $type:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $type, )*
        }

        impl $name {
            /// Reads the fields and leaves unknown keys to the caller.
            #[allow(unused_mut, unused_variables, clippy::allow_attributes_without_reason)]
            pub fn read_fields(reader: &mut $crate::spec::decode::MapReader<'_>, d: &mut $crate::spec::decode::Decoder) -> Option<Self> {
                $(
                    #[allow(unused_assignments, clippy::allow_attributes_without_reason)]
                    let mut default: Option<$type> = None;
                    $( default = Some($default); )?
                    let $field = reader.field::<$type>($crate::record!(@key $field $(as $key)?), default, d);
                )*
                Some(Self { $( $field: $field?, )* })
            }

            /// The schema of the fields: properties and the names of those that are required.
            #[allow(unused_mut, unused_variables, clippy::allow_attributes_without_reason)]
            pub fn field_schemas(schemas: &mut $crate::spec::decode::Schemas) -> (serde_json::Map<String, serde_json::Value>, Vec<String>) {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<String> = Vec::new();
                $(
                    let key = $crate::record!(@key $field $(as $key)?);
                    #[allow(unused_assignments, clippy::allow_attributes_without_reason)]
                    let mut default: Option<$type> = None;
                    $( default = Some($default); )?
                    if default.is_none() && <$type as $crate::spec::decode::Decode>::absent().is_none() {
                        required.push(key.to_owned());
                    }
                    let schema = <$type as $crate::spec::decode::Decode>::schema(schemas);
                    let default = default.as_ref().and_then($crate::spec::decode::Decode::written);
                    properties.insert(key.to_owned(), $crate::spec::decode::describe(schema, concat!($($field_doc),+), default));
                )*
                (properties, required)
            }
        }

        impl $crate::spec::decode::Decode for $name {
            fn decode(node: &$crate::spec::yaml::Node, d: &mut $crate::spec::decode::Decoder) -> Option<Self> {
                if d.is_pending(node) {
                    return None;
                }
                let mut reader = $crate::spec::decode::MapReader::new(node, $what, d)?;
                #[allow(unused_variables, clippy::allow_attributes_without_reason)]
                let before = d.problems.len();
                let value = Self::read_fields(&mut reader, d);
                reader.finish(&[], d);
                // A misspelt key would look like a missing one: rules between keys wait until each is right.
                $( if d.problems.len() == before { $check(node, d); } )?
                value
            }

            fn written(&self) -> Option<serde_json::Value> {
                let mut map = serde_json::Map::new();
                $(
                    if let Some(value) = $crate::spec::decode::Decode::written(&self.$field) {
                        map.insert($crate::record!(@key $field $(as $key)?).to_owned(), value);
                    }
                )*
                (!map.is_empty()).then_some(serde_json::Value::Object(map))
            }

            fn schema(schemas: &mut $crate::spec::decode::Schemas) -> serde_json::Value {
                let record = schemas.named(stringify!($name), |schemas| {
                    let (properties, required) = Self::field_schemas(schemas);
                    serde_json::json!({
                        "type": "object", "description": concat!($($doc),+).trim(), "properties": properties,
                        "required": required, "additionalProperties": false,
                    })
                });
                schemas.or_template(record)
            }
        }
    };
    (@key $field:ident as $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
}

/// Declares an enum that is written as one word.
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $doc:expr])+
        pub enum $name:ident ($what:literal) {
            $( $(#[doc = $variant_doc:expr])+ $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )*
        }

        impl $name {
            /// The word an author writes.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::spec::decode::Decode for $name {
            fn decode(node: &$crate::spec::yaml::Node, d: &mut $crate::spec::decode::Decoder) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),*];
                if d.is_pending(node) {
                    return None;
                }
                match node.text() {
                    $( Some($word) => Some(Self::$variant), )*
                    Some(other) => {
                        let problem = $crate::spec::problem::Problem::new(
                            "spec::unknown_word", format!("`{other}` is no {}", $what), node.span)
                            .label("not one of the words known here")
                            .help($crate::spec::problem::one_of(other, WORDS));
                        d.problem(problem);
                        None
                    }
                    None => {
                        d.expected(node, "a word", Some($crate::spec::problem::one_of("", WORDS)));
                        None
                    }
                }
            }

            fn written(&self) -> Option<serde_json::Value> {
                Some(self.word().into())
            }

            fn schema(schemas: &mut $crate::spec::decode::Schemas) -> serde_json::Value {
                let mut options = vec![$(
                    serde_json::json!({ "const": $word, "description": concat!($($variant_doc),+).trim() })
                ),*];
                if schemas.templates {
                    options.push(serde_json::json!({ "type": "string", "pattern": $crate::spec::decode::TEMPLATE }));
                }
                serde_json::json!({ "description": concat!($($doc),+).trim(), "anyOf": options })
            }
        }
    };
}
