//! Values with parts: sequences and tuples, maps, structs.

use serde::Serialize;
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};

use super::encode::{KeyError, encode, encode_field, put_text, tag};

/// Elements, up to an end mark; those of a set are collected and sorted first.
pub(crate) struct Elements<'a> {
    out: &'a mut Vec<u8>,
    sorted: Option<Vec<Vec<u8>>>,
}

impl<'a> Elements<'a> {
    pub(super) fn ordered(out: &'a mut Vec<u8>) -> Self {
        Elements { out, sorted: None }
    }

    pub(super) fn sorted(out: &'a mut Vec<u8>) -> Self {
        Elements { out, sorted: Some(Vec::new()) }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        match &mut self.sorted {
            None => encode(value, self.out),
            Some(elements) => {
                let mut element = Vec::new();
                encode(value, &mut element)?;
                elements.push(element);
                Ok(())
            }
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        // Structs are never sorted.
        encode_field(value, self.out)
    }

    fn finish(self) -> Result<(), KeyError> {
        if let Some(mut elements) = self.sorted {
            elements.sort_unstable();
            for element in elements {
                self.out.extend_from_slice(&element);
            }
        }
        self.out.push(tag::END);
        Ok(())
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        self.element(value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}

impl SerializeTuple for Elements<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        self.element(value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}

impl SerializeTupleStruct for Elements<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        self.field(value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}

impl SerializeTupleVariant for Elements<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        self.field(value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}

/// Keys and values, sorted by the encoded key, up to an end mark.
pub(crate) struct Pairs<'a> {
    out: &'a mut Vec<u8>,
    key: Option<Vec<u8>>,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Pairs { out, key: None, pairs: Vec::new() }
    }
}

impl SerializeMap for Pairs<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), KeyError> {
        let mut encoded = Vec::new();
        encode(key, &mut encoded)?;
        match self.key.replace(encoded) {
            None => Ok(()),
            Some(_) => Err(KeyError::custom("its Serialize wrote a map's key without a value")),
        }
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        let Some(key) = self.key.take() else {
            return Err(KeyError::custom("its Serialize wrote a map's value without a key"));
        };
        let mut encoded = Vec::new();
        encode(value, &mut encoded)?;
        self.pairs.push((key, encoded));
        Ok(())
    }
    fn end(mut self) -> Result<(), KeyError> {
        if self.key.is_some() {
            return Err(KeyError::custom("its Serialize wrote a map's key without a value"));
        }
        // Stable: entries that a type writes twice under one key keep their order, which may be significant.
        self.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in self.pairs {
            self.out.extend_from_slice(&key);
            self.out.extend_from_slice(&value);
        }
        self.out.push(tag::END);
        Ok(())
    }
}

/// Fields with their names, up to an end mark. Fields that serde skips are absent.
pub(crate) struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Fields { out }
    }

    fn field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.out.push(tag::FIELD);
        put_text(self.out, name.as_bytes());
        encode_field(value, self.out)
    }

    fn finish(self) -> Result<(), KeyError> {
        self.out.push(tag::END);
        Ok(())
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.field(name, value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}

impl SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = KeyError;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.field(name, value)
    }
    fn end(self) -> Result<(), KeyError> {
        self.finish()
    }
}
