<?php
// Ask a sensor over HTTP: php ask.php [ADDRESS [SENSOR]]

[, $address, $sensor] = $argv + [1 => 'http://127.0.0.1:8080', 2 => '20'];
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => 'Content-Type: application/json',
    'content' => json_encode(['origin' => 'website']),
    'ignore_errors' => true, // so that the body of an error is read, too
]]);
$body = file_get_contents("$address/api/v1/sensors/" . rawurlencode($sensor) . '/ask', false, $context);
$answer = json_decode($body ?: exit("usbgate is not there\n"), true);
isset($answer['code']) && exit("$answer[code]: $answer[detail]\n");
foreach ($answer['values'] as $field => $value) {
    echo "$field is $value\n";
}
