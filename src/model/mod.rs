//! A model: its shape ([`spec`]), its mapped weights ([`weights`]) and its forward pass ([`decoder`]).
