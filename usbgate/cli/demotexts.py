"""
The texts of the demo's configuration in French, for people whose locale is French.
"""

from __future__ import annotations

from collections.abc import Mapping

FRENCH = {
    "bedroom temperature": "température de la chambre",
    "bedroom humidity": "humidité de la chambre",
    "bedroom": "chambre",
    "bathroom climate": "air de la salle de bains",
    "bathroom": "salle de bains",
    "balcony temperature": "température de la terrasse",
    "balcony": "terrasse",
    "smoke detector": "détecteur de fumée",
    "Test the alarm": "Tester l’alarme",
    "hall presence": "présence dans l’entrée",
    "hall": "entrée",
    "kitchen presence": "présence dans la cuisine",
    "kitchen": "cuisine",
    "lamp": "lampe",
    "On": "Allumer",
    "Off": "Éteindre",
    "Half": "50 %",
    "shutter": "volet",
    "Up": "Lever",
    "Down": "Baisser",
    "Toggle": "Inverser",
}


def is_french(environment: Mapping[str, str]) -> bool:
    """
    Return whether messages are to be in French (see locale(7)).
    """
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    return next((environment[name] for name in names if environment.get(name)), "").startswith("fr")


def in_french(configuration: str) -> str:
    """
    Return a configuration with its texts in French.
    """
    for english, french in FRENCH.items():
        configuration = configuration.replace(f'"{english}"', f'"{french}"')
    return configuration
