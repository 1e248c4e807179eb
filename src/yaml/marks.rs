//! A value and, beside it, a tree of the same shape with the place of every node.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::Spanned;

use super::Place;

/// A value with its marks.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) value: Value,
    pub(super) marks: Marks,
}

/// The place of a node, and those of the nodes in it.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    at: Place,
    inside: Inside,
}

#[derive(Clone, Debug)]
enum Inside {
    Nothing,
    List(Vec<Marks>),
    Fields(Vec<Field>),
}

/// The place of the key is that of the whole field: an unknown field is wrong by its name.
#[derive(Clone, Debug)]
struct Field {
    key: String,
    key_at: Place,
    marks: Marks,
}

impl Marks {
    /// Where the field at `path` (`a.b[0].c`), or its key, stands, or the nearest field around it that exists.
    pub(super) fn place(&self, path: &str, of_key: bool) -> Place {
        let mut here = self;
        let mut place = self.at;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &here.inside {
                Inside::Nothing => None,
                Inside::List(items) => {
                    step.parse::<usize>().ok().and_then(|index| items.get(index)).map(|marks| (marks.at, marks))
                }
                Inside::Fields(fields) => fields
                    .iter()
                    .find(|field| field.key == step.trim_matches('"'))
                    .map(|field| (field.key_at, &field.marks)),
            };
            let Some((at, marks)) = next else { return place };
            (place, here) = (at, marks);
        }
        // The last step: a plain value is wrong where it stands, a list or a block where its key stands.
        if matches!(here.inside, Inside::Nothing) && !of_key { here.at } else { place }
    }
}

/// What a node holds, before its own place is known.
struct Content(Value, Inside);

impl<'de> Deserialize<'de> for Marked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: Content(value, inside), referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Marked { value, marks: Marks { at: referenced.into(), inside } })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

fn leaf(value: impl Into<Value>) -> Content {
    Content(value.into(), Inside::Nothing)
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(leaf(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(leaf(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(leaf(value))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Content, E> {
        Number::from_i128(value).map(leaf).ok_or_else(|| E::custom("the number is too large"))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Content, E> {
        Number::from_u128(value).map(leaf).ok_or_else(|| E::custom("the number is too large"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value).map(leaf).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(leaf(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(leaf(value))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let (mut values, mut marks) = (Vec::new(), Vec::new());
        while let Some(item) = seq.next_element::<Marked>()? {
            values.push(item.value);
            marks.push(item.marks);
        }
        Ok(Content(Value::Array(values), Inside::List(marks)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let (mut values, mut fields) = (Map::new(), Vec::new());
        while let Some(Spanned { value: key, referenced, .. }) = map.next_key::<Spanned<String>>()? {
            let Marked { value, marks } = map.next_value()?;
            if !value.is_null() {
                values.insert(key.clone(), value);
            }
            fields.push(Field { key, key_at: referenced.into(), marks });
        }
        Ok(Content(Value::Object(values), Inside::Fields(fields)))
    }
}
