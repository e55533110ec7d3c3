// The words and icons of the kinds of fields, whose names are Home Assistant's device classes. Units and decimals come
// from usbgate (`core/fieldkinds.py`).

// Shapes of 16 by 16.
const ICONS = {
  air: "M2 6h7a2 2 0 1 0-2-2M2 9h10a2 2 0 1 1-2 2M2 12h4",
  battery: "M2 5h10v6H2zM14 7v2M4 7v2M6.5 7v2",
  bolt: "M9 1.5 3.5 9H8l-1 5.5L12.5 7H8z",
  bulb: "M6 12h4M6.5 14h3M5.5 10a4 4 0 1 1 5 0z",
  door: "M4 14V2h8v12M2.5 14h11M9.8 8v.6",
  drop: "M8 2c2.5 3 4 5 4 7a4 4 0 0 1-8 0c0-2 1.5-4 4-7z",
  flame: "M8 14a4 4 0 0 1-4-4c0-3 3-4 3-8 3 1.5 5 5 5 8a4 4 0 0 1-4 4z",
  gauge: "M3 12a6 6 0 1 1 10 0M8 9l3-3",
  lock: "M4 7h8v7H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2",
  person: "M8 7a2.4 2.4 0 1 0 0-4.8A2.4 2.4 0 0 0 8 7zM3.5 14a4.5 4.5 0 0 1 9 0",
  power: "M8 2v6M4.8 4.2a5 5 0 1 0 6.4 0",
  shield: "M8 2l5 2v4c0 3-2 5-5 6-3-1-5-3-5-6V4z",
  temperature: "M6.5 9V3.5a1.5 1.5 0 0 1 3 0V9a3 3 0 1 1-3 0zM8 6v5",
  wave: "M2 8h2l1.5-4 3 8L10.5 6l1 2H14",
  window: "M3 2.5h10v11H3zM8 2.5v11M3 8h10",
};

// By kind: its icon, then its name and, for states, the words of 0 and 1, in English and in French.
const KINDS = {
  apparent_power: ["bolt", ["apparent power"], ["puissance apparente"]],
  aqi: ["air", ["air quality index"], ["indice de qualité de l’air"]],
  atmospheric_pressure: ["gauge", ["air pressure"], ["pression atmosphérique"]],
  battery: ["battery", ["battery"], ["pile"]],
  battery_charging: ["battery", ["charging", "not charging", "charging"], ["charge", "pas en charge", "en charge"]],
  carbon_dioxide: ["air", ["CO₂"], ["CO₂"]],
  carbon_monoxide: ["air", ["carbon monoxide"], ["monoxyde de carbone"]],
  cold: ["temperature", ["cold", "normal", "too cold"], ["froid", "normal", "trop froid"]],
  connectivity: ["wave", ["connection", "disconnected", "connected"], ["connexion", "déconnecté", "connecté"]],
  current: ["bolt", ["current"], ["intensité"]],
  distance: ["gauge", ["distance"], ["distance"]],
  door: ["door", ["door", "closed", "open"], ["porte", "fermée", "ouverte"]],
  duration: ["gauge", ["duration"], ["durée"]],
  energy: ["bolt", ["energy"], ["énergie"]],
  frequency: ["wave", ["frequency"], ["fréquence"]],
  garage_door: ["door", ["garage door", "closed", "open"], ["porte de garage", "fermée", "ouverte"]],
  gas: ["flame", ["gas"], ["gaz"]],
  heat: ["temperature", ["heat", "normal", "too hot"], ["chaleur", "normale", "excessive"]],
  humidity: ["drop", ["humidity"], ["humidité"]],
  illuminance: ["bulb", ["illuminance"], ["luminosité"]],
  irradiance: ["bulb", ["irradiance"], ["rayonnement"]],
  light: ["bulb", ["light", "none", "detected"], ["lumière", "aucune", "détectée"]],
  lock: ["lock", ["lock", "locked", "unlocked"], ["serrure", "verrouillée", "déverrouillée"]],
  moisture: ["drop", ["moisture"], ["humidité du sol"]],
  motion: ["person", ["motion", "none", "detected"], ["mouvement", "aucun", "détecté"]],
  moving: ["person", ["movement", "still", "moving"], ["déplacement", "immobile", "en mouvement"]],
  occupancy: ["person", ["occupancy", "free", "occupied"], ["occupation", "libre", "occupé"]],
  opening: ["window", ["opening", "closed", "open"], ["ouverture", "fermée", "ouverte"]],
  outlet: ["power", ["outlet", "off", "on"], ["prise", "éteinte", "allumée"]],
  ph: ["drop", ["pH"], ["pH"]],
  plug: ["power", ["plug", "unplugged", "plugged in"], ["branchement", "débranché", "branché"]],
  pm1: ["air", ["PM1"], ["PM1"]],
  pm10: ["air", ["PM10"], ["PM10"]],
  pm25: ["air", ["PM2.5"], ["PM2,5"]],
  power: ["bolt", ["power"], ["puissance"]],
  precipitation: ["drop", ["precipitation"], ["précipitations"]],
  presence: ["person", ["presence", "clear", "detected"], ["présence", "personne", "détectée"]],
  pressure: ["gauge", ["pressure"], ["pression"]],
  problem: ["shield", ["problem", "none", "detected"], ["problème", "aucun", "détecté"]],
  running: ["power", ["operation", "stopped", "running"], ["fonctionnement", "à l’arrêt", "en marche"]],
  safety: ["shield", ["safety", "safe", "unsafe"], ["sécurité", "assurée", "danger"]],
  signal_strength: ["wave", ["signal strength"], ["force du signal"]],
  smoke: ["flame", ["smoke", "clear", "detected"], ["fumée", "aucune", "détectée"]],
  sound: ["wave", ["sound", "none", "detected"], ["bruit", "aucun", "détecté"]],
  sound_pressure: ["wave", ["sound pressure"], ["niveau sonore"]],
  speed: ["gauge", ["speed"], ["vitesse"]],
  switch: ["power", ["switch", "off", "on"], ["interrupteur", "éteint", "allumé"]],
  tamper: ["shield", ["tampering", "none", "detected"], ["sabotage", "aucun", "détecté"]],
  temperature: ["temperature", ["temperature"], ["température"]],
  vibration: ["wave", ["vibration", "none", "detected"], ["vibration", "aucune", "détectée"]],
  volatile_organic_compounds: ["air", ["volatile organic compounds"], ["composés organiques volatils"]],
  voltage: ["bolt", ["voltage"], ["tension"]],
  volume: ["drop", ["volume"], ["volume"]],
  water: ["drop", ["water"], ["eau"]],
  weight: ["gauge", ["weight"], ["poids"]],
  wind_direction: ["air", ["wind direction"], ["direction du vent"]],
  wind_speed: ["air", ["wind speed"], ["vitesse du vent"]],
  window: ["window", ["window", "closed", "open"], ["fenêtre", "fermée", "ouverte"]],
};

/** The name of a kind in a language, and its words for 0 and 1 if it is a state; none for a kind that is not known. */
export function kindWords(kind, language) {
  const [, english = [], french = []] = KINDS[kind] ?? [];
  return language === "fr" ? french : english;
}

/** The path of the icon of a kind; null if there is none. */
export function kindIcon(kind) {
  return ICONS[KINDS[kind]?.[0]] ?? null;
}
