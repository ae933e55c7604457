"""Pure conversions between the Engine API's JSON and SwarmKit's protobuf, one module a subject, both directions.

Names: ``xxx_from_json(obj, path) -> protobuf`` raises ApiError 400 with the field's path in its sentence;
``xxx_to_json(pb) -> dict`` cannot fail. Fields that JSON leaves out when empty are left out, in Go's field order.
"""
