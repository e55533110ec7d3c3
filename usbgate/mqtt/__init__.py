"""
A client of an MQTT broker: values, Home Assistant's discovery, questions and commands (docs/mqtt.md).
"""
